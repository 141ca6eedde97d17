#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "create.h"
#include "mounts.h"
#include "sys.h"

/* The exit status of a child that did not get as far as the runtime. */
#define SETUP_FAILED 125

static int move_fd(int from, int to)
{
	return from < 0 || dup2(from, to) >= 0 ? 0 : -errno;
}

/* Gives the runtime the surroundings that the monitor was started with. */
static void restore(const struct monitor *m)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(m->umask);
	setrlimit(RLIMIT_NOFILE, &m->files);
	if (m->oom_score_adj[0] != '\0') {
		AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, m->oom_score_adj, strlen(m->oom_score_adj)) < 0)
			return; /* only the runtime itself would be affected */
	}
}

/* stderr is the pipe that the monitor takes the runtime's words from. */
__attribute__((noreturn)) static void give_up(const struct text *error)
{
	if (write(STDERR_FILENO, error->buf, error->len) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
		_exit(SETUP_FAILED);
	_exit(SETUP_FAILED);
}

void child_run(const struct monitor *m, const struct create_request *r, const struct child_io *io,
	       const int *namespaces)
{
	TEXT(error, 1024);

	/* A session of its own: killed as a whole when it takes too long. */
	setsid();
	if (move_fd(io->in, STDIN_FILENO) < 0 || move_fd(io->out >= 0 ? io->out : io->err, STDOUT_FILENO) < 0 ||
	    move_fd(io->err, STDERR_FILENO) < 0)
		_exit(SETUP_FAILED);
	restore(m);
	if (r->mount_count > 0 && mounts_enter(r, namespaces, &error) < 0)
		give_up(&error);
	execv(r->args[0], (char *const *)r->args);
	error.len = 0;
	text_add(&error, "exec ");
	text_add(&error, r->args[0]);
	text_errno(&error, errno);
	give_up(&error);
}
