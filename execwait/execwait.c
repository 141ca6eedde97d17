/*
 * execwait [-k FILE COUNT KILL...] SCORE PIDFILE RUNTIME ARG...
 *
 * Takes SCORE as its oom_score_adj, which all that it starts inherits ("" or
 * one that may not be set: leaves it), since crun's exec does not set that of
 * the container. Runs RUNTIME ARG..., which is an OCI runtime's `exec --detach` with
 * PIDFILE as its --pid-file, and then waits for the process that it has
 * started in the container. That process becomes a child of execwait when the
 * runtime ends, since execwait is a subreaper.
 *
 * The exit status is that of the process, or 128 and the signal that ended
 * it. When the runtime fails, it is the runtime's, and PIDFILE does not exist.
 *
 * Descriptor 3, where it is open, is the lifeline: a pipe whose other end only
 * the caller has open. When that closes, because the caller has died, and on
 * SIGTERM, all that came of execwait is killed, as far as its sessions and
 * children tell.
 *
 * A process inside a sandbox with a kernel of its own is not among that. -k
 * says how to kill it: FILE has its PID there, KILL... are COUNT words of a
 * command line, and a word that ends in "=" is completed by that PID.
 *
 * Why: without --detach, runc copies the process's output itself and does not
 * end before everyone has closed it, a daemon left in the background too; and
 * with --detach nobody would learn the exit status.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 255, LIFELINE = 3, MAX_VICTIMS = 4096, MAX_WORDS = 64 };

static int fail(const char *what)
{
	fprintf(stderr, "execwait: %s: %s\n", what, strerror(errno));
	return FAILED;
}

/* Reads the number in the file; 0 if there is none. */
static pid_t read_pid(const char *path)
{
	char text[32];
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return 0;
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = '\0';
	long pid = strtol(text, NULL, 10);
	return pid > 0 ? (pid_t)pid : 0;
}

struct victims {
	size_t count;
	pid_t pids[MAX_VICTIMS];
};

static bool holds(const struct victims *v, pid_t pid)
{
	for (size_t i = 0; i < v->count; i++)
		if (v->pids[i] == pid)
			return true;
	return false;
}

/* Reads the parent and the session of a process; false if there is none, or a dead one. */
static bool read_stat(const char *pid, pid_t *parent, pid_t *session)
{
	char path[6 + 256 + 6], text[512], *end, state;
	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	end = strrchr(text, ')'); /* the name before it can hold anything */
	return end != NULL && sscanf(end + 1, " %c %d %*d %d", &state, parent, session) == 3 && state != 'Z' && state != 'X';
}

/* Adds each process whose parent or session leader is execwait or known; says whether there was one. */
static bool find_more(struct victims *v)
{
	bool grown = false;
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	if (proc == NULL)
		return false;
	while (v->count < MAX_VICTIMS && (entry = readdir(proc)) != NULL) {
		pid_t parent, session, pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (pid <= 0 || pid == getpid() || holds(v, pid) || !read_stat(entry->d_name, &parent, &session))
			continue;
		if (parent == getpid() || holds(v, parent) || holds(v, session)) {
			kill(pid, SIGSTOP); /* so that it starts no more */
			v->pids[v->count++] = pid;
			grown = true;
		}
	}
	closedir(proc);
	return grown;
}

/* How to kill a process inside a sandbox. */
struct inside {
	const char *pid_file; /* NULL: there is none */
	int count;
	char **words;
};

/* Waits a while for the PID of a process that was started just now. */
static void await_inside(const struct inside *inside)
{
	const struct timespec pause = {.tv_nsec = 10 * 1000000L};
	for (int i = 0; inside->pid_file != NULL && i < 200 && read_pid(inside->pid_file) == 0; i++)
		nanosleep(&pause, NULL);
}

static void kill_inside(const struct inside *inside)
{
	char *args[MAX_WORDS + 1] = {0}, completed[256];
	pid_t pid = inside->pid_file != NULL ? read_pid(inside->pid_file) : 0;
	if (pid == 0)
		return;
	for (int i = 0; i < inside->count; i++) {
		size_t length = strlen(inside->words[i]);
		args[i] = inside->words[i];
		if (length > 0 && args[i][length - 1] == '=') {
			snprintf(completed, sizeof completed, "%s%d", args[i], (int)pid);
			args[i] = completed;
		}
	}
	if (fork() == 0) {
		execv(args[0], args);
		_exit(127);
	}
}

static void kill_all(const struct inside *inside)
{
	struct victims v = {0};
	await_inside(inside);
	while (find_more(&v))
		;
	for (size_t i = 0; i < v.count; i++)
		kill(v.pids[i], SIGKILL);
	kill_inside(inside);
}

/* Makes the descriptor that tells of the end of a child and of SIGTERM. */
static int watch_signals(sigset_t *old)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, old) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/*
 * Waits for one child, reaping what else it adopts if all, and returns its
 * exit status as a shell gives it; -1 on error.
 */
static int wait_for(pid_t pid, bool all, int signals, int *lifeline, const struct inside *inside)
{
	for (;;) {
		int status;
		pid_t got;
		while ((got = waitpid(all ? -1 : pid, &status, WNOHANG)) > 0)
			if (got == pid)
				return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (got < 0 && errno != EINTR)
			return -1;
		struct pollfd fds[] = {{.fd = signals, .events = POLLIN}, {.fd = *lifeline}};
		struct signalfd_siginfo info;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -1;
		bool end = fds[1].revents != 0;
		while (read(signals, &info, sizeof info) == sizeof info)
			end = end || info.ssi_signo == SIGTERM;
		if (end) {
			*lifeline = -1; /* poll skips it */
			kill_all(inside);
		}
	}
}

static void set_oom_score(const char *score)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* Only lowering it can be refused, and then the higher one stands. */
	if (write(fd, score, strlen(score)) < 0)
		errno = 0;
	close(fd);
}

int main(int argc, char **argv)
{
	struct inside inside = {0};
	if (argc > 4 && strcmp(argv[1], "-k") == 0) {
		inside = (struct inside){.pid_file = argv[2], .count = atoi(argv[3]), .words = argv + 4};
		if (inside.count < 1 || inside.count > MAX_WORDS || inside.count > argc - 4)
			inside.count = argc = 0;
		argv += 3 + inside.count;
		argc -= 3 + inside.count;
	}
	if (argc < 4) {
		fprintf(stderr, "usage: execwait [-k FILE COUNT KILL...] SCORE PIDFILE RUNTIME ARG...\n");
		return FAILED;
	}
	if (*argv[1] != '\0')
		set_oom_score(argv[1]);
	const char *pid_file = argv[2];
	int lifeline = fcntl(LIFELINE, F_SETFD, FD_CLOEXEC) < 0 ? -1 : LIFELINE;
	sigset_t old;
	int signals = watch_signals(&old);
	if (signals < 0)
		return fail("watch signals");
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return fail("become a subreaper");
	pid_t runtime = fork();
	if (runtime < 0)
		return fail("fork");
	if (runtime == 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	int status = wait_for(runtime, false, signals, &lifeline, &inside);
	if (status != 0) {
		unlink(pid_file);
		return status < 0 ? fail("wait for the runtime") : status;
	}
	pid_t process = read_pid(pid_file);
	if (process == 0) {
		unlink(pid_file);
		fprintf(stderr, "execwait: the runtime has not written %s\n", pid_file);
		return FAILED;
	}
	/* Its input and output belong to the process alone from here on. */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	status = wait_for(process, true, signals, &lifeline, &inside);
	if (status < 0) {
		unlink(pid_file);
		return fail("wait for the process");
	}
	return status;
}
