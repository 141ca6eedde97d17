#include "create.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "journal.h"
#include "sys.h"

/* A killed runtime that is still there after so long is given up. */
#define GIVE_UP_MS 5000

pid_t creation_runtime(const struct container *c)
{
	return c->creation->runtime;
}

/* Keeps the last bytes of what the runtime says. Returns false at the end. */
static bool read_words(struct creation *creation)
{
	char *buf = creation->output;
	ssize_t n;

	if (creation->output_len > GM_MAX_OUTPUT / 2) {
		size_t half = creation->output_len / 2;

		memmove(buf, buf + half, creation->output_len - half);
		creation->output_len -= half;
	}
	n = read(creation->words.fd, buf + creation->output_len, GM_MAX_OUTPUT - creation->output_len);
	if (n > 0)
		creation->output_len += (size_t)n;
	return n > 0;
}

static void words_ready(struct monitor *m, struct source *s, uint32_t events)
{
	struct creation *creation = owner_of(s, struct creation, words);

	/* At the end of file the pipe would wake us again and again. */
	if (!read_words(creation) && events & EPOLLHUP)
		loop_unwatch(m, s);
}

/* Opens what must exist before the runtime starts. Errors say what failed. */
static int open_files(struct monitor *m, struct container *c, const struct create_request *r, struct text *error)
{
	int rc;

	text_add(error, "create exit record ");
	text_add(error, r->exit_file);
	c->exit_fd = rc = record_create(r->exit_file);
	if (rc < 0)
		return rc;
	if (r->journal) {
		error->len = 0;
		text_add(error, "journal ");
		text_add(error, r->journal);
		rc = journal_use(m, c, r->journal, r->journal_fields, r->journal_fields_len);
		if (rc < 0)
			return rc;
	}
	c->log.limit = r->log_limit;
	if (r->log_path) {
		error->len = 0;
		text_add(error, "open log ");
		text_add(error, r->log_path);
		rc = log_open(&c->log, r->log_path);
	}
	return rc < 0 ? rc : 0;
}

static int copy_string(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

static int make_creation(struct container *c, const struct create_request *r)
{
	struct creation *creation = calloc(1, sizeof(*creation));

	if (!creation)
		return -ENOMEM;
	creation->words.fd = -1;
	creation->words.ready = words_ready;
	creation->console.fd = -1;
	creation->master = -1;
	c->creation = creation;
	if (copy_string(&creation->pid_file, r->pid_file) < 0 || copy_string(&creation->exit_file, r->exit_file) < 0 ||
	    copy_string(&c->oom_file, r->oom_file) < 0)
		return -ENOMEM;
	return 0;
}

static int make_pipe(int *reader, int *writer)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*reader = ends[0];
	*writer = ends[1];
	return 0;
}

/* Gives the container's ends of the pipes to whom a process in a user namespace
 * must be to open them by name, as in /dev/stdout. */
static int own_pipes(const struct create_request *r, const struct child_io *io)
{
	const int ends[] = { io->in, io->out, io->err };

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (ends[i] >= 0 && fchown(ends[i], r->owner_uid, r->owner_gid) < 0)
			return -errno;
	return 0;
}

/* Makes the pipes between the container and the monitor. */
static int open_pipes(struct container *c, const struct create_request *r, struct child_io *io)
{
	int rc = make_pipe(&c->creation->words.fd, &io->err);

	if (rc == 0 && !(c->flags & GM_TTY))
		rc = make_pipe(&c->out.source.fd, &io->out);
	if (rc == 0 && c->flags & GM_STDIN && !(c->flags & GM_TTY))
		rc = make_pipe(&io->in, &c->in.fd);
	if (rc == 0 && fcntl(c->creation->words.fd, F_SETFL, O_NONBLOCK) < 0)
		rc = -errno;
	if (rc == 0 && c->in.fd >= 0 && fcntl(c->in.fd, F_SETFL, O_NONBLOCK) < 0)
		rc = -errno;
	if (rc == 0 && (r->owner_uid != 0 || r->owner_gid != 0))
		rc = own_pipes(r, io);
	return rc;
}

/* Opens a namespace of a process. Only containers of this pod count, and only
 * while we have not reaped them: so the PID is theirs. */
static int open_namespace(const struct monitor *m, pid_t pid, const char *kind, struct text *error)
{
	const struct container *of = m->containers;
	TEXT(path, 48);
	int fd;

	while (of && !(of->state == GM_STATE_RUNNING && of->pid == pid))
		of = of->next;
	text_add(&path, "/proc/");
	text_number(&path, (uint64_t)pid);
	text_add(&path, "/ns/");
	text_add(&path, kind);
	error->len = 0;
	text_add(error, "namespaces of process ");
	text_number(error, (uint64_t)pid);
	if (!of)
		return -ESRCH;
	fd = open(path.buf, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Opens for each mount the mount namespace that it is taken from, or the user
 * namespace that maps its ids; -1 where it has neither. */
static int open_namespaces(const struct monitor *m, const struct create_request *r, int *namespaces, struct text *error)
{
	for (size_t i = 0; i < r->mount_count; i++) {
		const struct mount_request *mount = &r->mounts[i];

		if (mount->from_pid != 0)
			namespaces[i] = open_namespace(m, (pid_t)mount->from_pid, "mnt", error);
		else if (mount->ids_pid != 0)
			namespaces[i] = open_namespace(m, (pid_t)mount->ids_pid, "user", error);
		else
			continue;
		if (namespaces[i] < 0)
			return namespaces[i];
	}
	return 0;
}

static int start_runtime(struct monitor *m, struct container *c, const struct create_request *r, struct child_io *io,
			 struct text *error)
{
	int namespaces[MAX_MOUNTS];
	int rc;

	for (size_t i = 0; i < MAX_MOUNTS; i++)
		namespaces[i] = -1;
	rc = open_namespaces(m, r, namespaces, error);
	if (rc == 0) {
		error->len = 0;
		text_add(error, "fork");
		c->creation->runtime = fork();
		if (c->creation->runtime == 0)
			child_run(m, r, io, namespaces);
		rc = c->creation->runtime < 0 ? -errno : 0;
	}
	for (size_t i = 0; i < MAX_MOUNTS; i++)
		close_fd(&namespaces[i]);
	return rc;
}

/* Everything up to the running runtime. */
static int begin(struct monitor *m, struct container *c, const struct create_request *r, struct child_io *io,
		 struct text *error)
{
	int rc;

	unlink(r->pid_file); /* an old one would name a process that is not this container's */
	rc = open_files(m, c, r, error);
	if (rc < 0)
		return rc;
	error->len = 0;
	text_add(error, "make pipes");
	rc = open_pipes(c, r, io);
	if (rc == 0)
		rc = loop_watch(m, &c->creation->words, EPOLLIN);
	if (rc == 0 && r->console) {
		error->len = 0;
		text_add(error, "listen at ");
		text_add(error, r->console);
		rc = console_listen(m, c->creation, r->console);
	}
	return rc < 0 ? rc : start_runtime(m, c, r, io, error);
}

static void create(struct monitor *m, const struct create_request *r, const struct call *call)
{
	struct child_io io = { .in = -1, .out = -1, .err = -1 };
	struct container *c = container_add(m, r->container, (uint8_t)r->flags);
	int rc = c ? make_creation(c, r) : -ENOMEM;
	TEXT(error, 512);

	if (rc == 0)
		rc = creation_add_waiter(c->creation, call);
	if (rc == 0)
		rc = begin(m, c, r, &io, &error);
	close_fd(&io.in);
	close_fd(&io.out);
	close_fd(&io.err);
	if (rc == 0) {
		c->creation->due = m->now + r->timeout_ms;
		loop_at(m, c->creation->due);
		return;
	}
	text_errno(&error, -rc);
	client_fail(m, call, -rc, error.buf);
	if (c)
		container_remove(m, c);
}

void create_handle(struct monitor *m, const struct call *call)
{
	struct create_request *r = &loop_scratch(m)->create;
	int rc = create_request_parse(call->fields, r);
	struct container *c;

	if (rc < 0) {
		client_fail(m, call, -rc, "malformed create request");
		return;
	}
	c = container_find(m, r->container);
	if (c)
		creation_join(m, c, call);
	else if (m->container_count == MAX_CONTAINERS)
		client_fail(m, call, ENOSPC, "too many containers in this pod");
	else
		create(m, r, call);
}

/* Reads the PID that the runtime has written; it must be a child of ours. */
static pid_t read_pid(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	siginfo_t child;
	char buf[24];
	char *end;
	ssize_t n;
	long pid;

	if (fd < 0 || (n = read(fd, buf, sizeof(buf) - 1)) <= 0)
		return -1;
	buf[n] = '\0';
	pid = strtol(buf, &end, 10);
	if (pid <= 1 || pid > INT32_MAX || (*end != '\0' && *end != '\n'))
		return -1;
	if (waitid(P_PID, (id_t)pid, &child, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
		return -1;
	return (pid_t)pid;
}

/* Hands the descriptors of a created container over. */
static int take_over(struct monitor *m, struct container *c)
{
	struct creation *creation = c->creation;

	loop_unwatch(m, &creation->words);
	if (!(c->flags & GM_TTY)) {
		c->err.source.fd = take_fd(&creation->words.fd);
		return 0;
	}
	console_finish(m, creation);
	if (creation->master < 0)
		return -ENOTTY;
	c->out.source.fd = take_fd(&creation->master);
	if (c->flags & GM_STDIN)
		c->in.fd = fcntl(c->out.source.fd, F_DUPFD_CLOEXEC, 3);
	return 0;
}

static void fail(struct monitor *m, struct container *c, int error, const char *words, const int *status)
{
	pid_t left = read_pid(c->creation->pid_file);

	if (left > 0 && !containers_know(m, left))
		kill(left, SIGKILL);
	creation_tell_failure(m, c, error, words, status);
	container_remove(m, c);
}

void creation_finish(struct monitor *m, struct container *c, int status)
{
	pid_t pid;

	while (read_words(c->creation))
		;
	if (c->creation->killed) {
		fail(m, c, ETIMEDOUT, "the runtime took too long", &status);
		return;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fail(m, c, EIO, "the runtime failed", &status);
		return;
	}
	pid = read_pid(c->creation->pid_file);
	if (pid < 0) {
		fail(m, c, EIO, "the runtime's pid file names no process of its own", &status);
		return;
	}
	if (take_over(m, c) < 0) {
		fail(m, c, EIO, "the runtime sent no terminal", &status);
		return;
	}
	container_created(m, c, pid);
	creation_tell_pid(m, c);
	creation_free(m, c);
}

void creation_timers(struct monitor *m, struct container *c)
{
	struct creation *creation = c->creation;

	if (creation->given_up)
		return;
	if (m->now < creation->due) {
		loop_at(m, creation->due);
		return;
	}
	if (creation->killed) {
		creation->given_up = true;
		creation_tell_failure(m, c, ETIMEDOUT, "the runtime took too long and can't be killed", NULL);
		return;
	}
	creation->killed = true;
	kill(-creation->runtime, SIGKILL);
	kill(creation->runtime, SIGKILL);
	creation->due = m->now + GIVE_UP_MS;
	loop_at(m, creation->due);
}

void creation_free(struct monitor *m, struct container *c)
{
	struct creation *creation = c->creation;

	c->creation = NULL;
	loop_close(m, &creation->words);
	console_close(m, creation);
	close_fd(&creation->master);
	if (c->state == GM_STATE_CREATING && creation->exit_file)
		unlink(creation->exit_file);
	while (creation->waiters) {
		struct waiter *w = creation->waiters;

		creation->waiters = w->next;
		free(w);
	}
	free(creation->console_path);
	free(creation->pid_file);
	free(creation->exit_file);
	loop_bury(m, &creation->grave);
}
