/*
 * gantry-monitor: one per pod, the parent of all its containers.
 *
 *   gantry-monitor [CGROUP...]
 *
 * Started in the pod's directory. Listens at monitor.sock there, then leaves
 * its parent: the program exits 0 when the socket takes connections, and the
 * monitor lives on. It moves itself into the given cgroup directories.
 *
 * SIGTERM, as a node sends it to everything when it shuts down, ends the monitor
 * only after the last container has ended and its exit is recorded. SIGINT,
 * SIGHUP and whatever else can be blocked have no effect.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "client.h"
#include "container.h"
#include "journal.h"
#include "sys.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define SOCKET "monitor.sock"
#define BACKLOG 64
/* Enough descriptors for a pod with hundreds of containers. */
#define WANT_FILES 8192
/* Among the last to be killed when the node runs out of memory. */
#define OOM_SCORE_ADJ "-999"

__attribute__((noreturn)) static void die(const char *what, int error)
{
	TEXT(t, 256);

	text_add(&t, "gantry-monitor: ");
	text_add(&t, what);
	text_errno(&t, error);
	text_add(&t, "\n");
	if (write(STDERR_FILENO, t.buf, t.len) < 0)
		_exit(2);
	_exit(1);
}

/* Listens in the working directory. One monitor per directory: the lock on it
 * outlives no monitor, so that what a dead one left can be removed. */
static int listen_here(void)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t before;
	int rc;

	if (dir < 0 || fd < 0)
		die("open", errno);
	if (flock(dir, LOCK_EX | LOCK_NB) < 0)
		die("another monitor runs here", errno);
	unlink(SOCKET);
	before = umask(0177);
	rc = bind(fd, (const struct sockaddr *)&address, sizeof(address));
	umask(before);
	if (rc < 0 || listen(fd, BACKLOG) < 0)
		die("listen at " SOCKET, errno);
	return fd;
}

/* Raises what the monitor needs and keeps what its children must get back. */
static void set_limits(struct monitor *m)
{
	AUTO_CLOSE int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	struct rlimit files;
	ssize_t n;

	m->umask = umask(0027);
	if (getrlimit(RLIMIT_NOFILE, &m->files) == 0) {
		files = m->files;
		if (files.rlim_cur < WANT_FILES)
			files.rlim_cur = files.rlim_max < WANT_FILES ? files.rlim_max : WANT_FILES;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (fd < 0)
		return;
	n = read(fd, m->oom_score_adj, sizeof(m->oom_score_adj) - 1);
	/* Allowed to few; a nested or hardened node goes without. */
	if (n <= 0 || pwrite(fd, OOM_SCORE_ADJ, sizeof(OOM_SCORE_ADJ) - 1, 0) < 0)
		m->oom_score_adj[0] = '\0';
}

/* Moves the monitor into its cgroups, in a child: it can take the kernel long. */
static void join_cgroups(char *const *dirs)
{
	TEXT(pid, 16);

	if (!*dirs)
		return;
	text_number(&pid, (uint64_t)getpid());
	if (fork() != 0)
		return;
	for (; *dirs; dirs++) {
		int fd;

		if (chdir(*dirs) < 0)
			continue;
		fd = open("cgroup.procs", O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, pid.buf, pid.len) < 0)
			close_fd(&fd); /* it stays where it is: only accounting suffers */
	}
	_exit(0);
}

static void detach_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		die("open /dev/null", errno);
	close(null);
}

static void signals_ready(struct monitor *m, struct source *s, uint32_t events)
{
	struct signalfd_siginfo info;

	(void)events;
	while (read(s->fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGTERM)
			m->leaving = true;
		else
			containers_reap(m);
	}
	if (m->leaving && !containers_busy(m))
		m->done = true;
}

/* The monitor proper; ready is where the waiting parent hears of it. */
static void run(struct monitor *m, int ready, char *const *cgroups)
{
	int rc;

	setsid();
	prctl(PR_SET_NAME, "gantry-monitor");
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("become a subreaper", errno);
	set_limits(m);
	m->signals.ready = signals_ready;
	rc = loop_open(m);
	if (rc == 0)
		rc = clients_open(m);
	if (rc < 0)
		die("prepare the event loop", -rc);
	detach_stdio();
	if (write(ready, "", 1) < 0)
		_exit(1);
	close(ready);
	join_cgroups(cgroups);
	loop_run(m);
	unlink(SOCKET);
	while (m->containers)
		container_remove(m, m->containers);
	clients_close(m);
	journal_close(m);
	loop_end(m);
}

/* Waits until the child is ready, or has said why it is not. */
__attribute__((noreturn)) static void wait_ready(int ready)
{
	char byte;

	_exit(read(ready, &byte, 1) == 1 ? 0 : 1);
}

/* What whoever started us forgot to close must not stay open as long as a pod lives. */
static void close_inherited(void)
{
	if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
		return;
	for (int fd = 3; fd < 1024; fd++) /* older than Linux 5.9 */
		close(fd);
}

int main(int argc, char **argv)
{
	struct monitor m = { .epoll = -1 };
	sigset_t all;
	int ready[2];

	(void)argc;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	close_inherited();
	m.listener.fd = listen_here();
	if (pipe2(ready, O_CLOEXEC) < 0)
		die("pipe", errno);
	switch (fork()) {
	case -1:
		die("fork", errno);
	case 0:
		close(ready[0]);
		run(&m, ready[1], argv + 1);
		return 0; /* a sanitizer looks for leaks then */
	default:
		close(ready[1]);
		wait_ready(ready[0]);
	}
}
