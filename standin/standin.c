/*
 * standin PIDFILE SOCKET CREATE... -- START... -- WAIT...
 *
 * Stands in for the init of a container that has no process of its own on this
 * node, because it runs inside the sandbox of a runtime with its own kernel
 * (gVisor's runsc). Whoever creates a container runs standin in the place of
 * RUNTIME create, and gets what other runtimes give: a process that lives as
 * long as the container and ends as it does.
 *
 * It runs CREATE, leaves a process of its own behind, whose PID it writes to
 * PIDFILE, and ends as CREATE has ended. The process that is left has the
 * container's pipes as its standard streams, and is in the mount namespace with
 * the container's root filesystem: runsc wants both at START, not before.
 *
 * It listens at SOCKET. To whoever connects it answers, once START has ended,
 * with one byte: START's exit status, or 255 where a signal ended it. When that
 * is 0 it lets go of the pipes, runs WAIT, and ends with the status that WAIT
 * prints as {"exitStatus": N}. Without such a word, since the sandbox is gone,
 * it ends itself by SIGKILL.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 125, ATTEMPTS = 3, PAUSE_MS = 100 };

static int fail(const char *what)
{
	fprintf(stderr, "standin: %s: %s\n", what, strerror(errno));
	return FAILED;
}

/* Starts a program that does not outlive this process; out, unless -1, becomes its output. */
static pid_t start(char **args, int out, bool bound)
{
	pid_t parent = getpid(), child = fork();

	if (child != 0)
		return child;
	if (bound && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(FAILED);
	if (out >= 0 && dup2(out, STDOUT_FILENO) < 0)
		_exit(FAILED);
	execv(args[0], args);
	fail(args[0]);
	_exit(FAILED);
}

/* Waits for a child and returns its exit status; -1 if a signal has ended it. */
static int finish(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(char **args)
{
	pid_t child = start(args, -1, false);

	return child < 0 ? fail("fork") : finish(child);
}

/* Listens at a path of any length: only its last part has to fit into an address. */
static int listen_at(char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *name = strrchr(path, '/');
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!name || fd < 0 || strlen(name + 1) >= sizeof(address.sun_path))
		return -1;
	*name = '\0';
	if (chdir(path) < 0)
		return -1;
	*name = '/';
	strcpy(address.sun_path, name + 1);
	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0)
		return -1;
	return fd;
}

/* Runs START for each that connects, until it succeeds. */
static bool serve_start(int listener, char **args)
{
	int status;

	do {
		unsigned char answer;
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (client < 0)
			return false;
		status = run(args);
		answer = status < 0 ? 255 : (unsigned char)status;
		/* Who asked may be gone: another can ask for the state. */
		send(client, &answer, 1, MSG_NOSIGNAL);
		close(client);
	} while (status != 0);
	return true;
}

/* Closes this process's copies of the container's pipes. */
static void let_go(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			close(fd);
}

/* Reads all that comes and returns the number after "exitStatus":; -1 if there is none. */
static int read_status(int fd)
{
	char text[512];
	size_t length = 0;
	int status = -1;
	ssize_t n;
	char *at;

	while (length < sizeof(text) - 1 &&
	       ((n = read(fd, text + length, sizeof(text) - 1 - length)) > 0 || (n < 0 && errno == EINTR)))
		length += n > 0 ? (size_t)n : 0;
	text[length] = '\0';
	at = strstr(text, "\"exitStatus\":");
	return at && sscanf(at, "\"exitStatus\":%d", &status) == 1 ? status : -1;
}

/* Waits for the container: its exit status, or -1 if that can't be learnt. */
static int wait_once(char **args)
{
	int ends[2], status;
	pid_t child;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	child = start(args, ends[1], true);
	close(ends[1]);
	status = child < 0 ? -1 : read_status(ends[0]);
	close(ends[0]);
	if (child > 0)
		finish(child);
	return status;
}

static int wait_for(char **args)
{
	const struct timespec pause = { .tv_nsec = PAUSE_MS * 1000000L };

	for (int i = 0; i < ATTEMPTS; i++) {
		int status = wait_once(args);

		if (status >= 0)
			return status;
		nanosleep(&pause, NULL);
	}
	return -1;
}

/* The life of the process that stays. */
__attribute__((noreturn)) static void stand_in(int listener, char *socket_path, char **start_args, char **wait_args)
{
	int status = -1;

	if (serve_start(listener, start_args)) {
		close(listener);
		unlink(socket_path);
		let_go();
		status = wait_for(wait_args);
	}
	if (status >= 0)
		_exit(status);
	kill(getpid(), SIGKILL);
	_exit(FAILED);
}

static bool write_pid(const char *path, pid_t pid)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return false;
	fprintf(f, "%d", (int)pid);
	return fclose(f) == 0;
}

/* Cuts the arguments at the next "--" and returns what follows. */
static char **cut(char **args)
{
	while (*args && strcmp(*args, "--") != 0)
		args++;
	if (!*args)
		return args;
	*args = NULL;
	return args + 1;
}

int main(int argc, char **argv)
{
	char **create_args = argc > 3 ? argv + 3 : argv + argc;
	char **start_args = cut(create_args);
	char **wait_args = cut(start_args);
	int status, listener;
	pid_t rest;

	if (!*create_args || !*start_args || !*wait_args) {
		fprintf(stderr, "usage: standin PIDFILE SOCKET CREATE... -- START... -- WAIT...\n");
		return FAILED;
	}
	status = run(create_args);
	if (status != 0)
		return status < 0 ? FAILED : status;
	listener = listen_at(argv[2]);
	if (listener < 0)
		return fail("listen");
	rest = fork();
	if (rest < 0)
		return fail("fork");
	if (rest == 0) {
		setsid();
		stand_in(listener, argv[2], start_args, wait_args);
	}
	if (!write_pid(argv[1], rest)) {
		kill(rest, SIGKILL);
		return fail("write the PID");
	}
	return 0;
}
