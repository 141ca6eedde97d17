/*
 * execwait SCORE PIDFILE RUNTIME ARG...
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
 * Why: without --detach, runc copies the process's output itself and does not
 * end before everyone has closed it, a daemon left in the background too; and
 * with --detach nobody would learn the exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILED = 255 };

static int fail(const char *what)
{
	fprintf(stderr, "execwait: %s: %s\n", what, strerror(errno));
	return FAILED;
}

/* Waits for one child and returns its exit status as a shell gives it; -1 on error. */
static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
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
	if (argc < 4) {
		fprintf(stderr, "usage: execwait SCORE PIDFILE RUNTIME ARG...\n");
		return FAILED;
	}
	if (*argv[1] != '\0')
		set_oom_score(argv[1]);
	const char *pid_file = argv[2];
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return fail("become a subreaper");
	pid_t runtime = vfork();
	if (runtime < 0)
		return fail("fork");
	if (runtime == 0) {
		execv(argv[3], argv + 3);
		_exit(127);
	}
	int status = wait_for(runtime);
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
	/* Its output belongs to the process alone from here on. */
	close(STDOUT_FILENO);
	status = wait_for(process);
	if (status < 0) {
		unlink(pid_file);
		return fail("wait for the process");
	}
	return status;
}
