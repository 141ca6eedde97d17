#include "container.h"

#include <sys/wait.h>
#include <time.h>

#include "attach.h"
#include "client.h"
#include "create.h"
#include "logfile.h"
#include "oom.h"
#include "sys.h"

/* An exit record that could not be written is tried again after so long. */
#define RECORD_RETRY_MS 1000
/* A log counts as working again when no write has failed for so long. */
#define LOG_SANE_MS 1000
/* A log that can't be written, and to which nothing is written, is looked at so often. */
#define LOG_LOOK_MS 1000

struct container *container_find(const struct monitor *m, const char *id)
{
	struct container *c = m->containers;

	while (c && strcmp(c->id, id) != 0)
		c = c->next;
	return c;
}

static void stream_init(struct container *c, struct stream *s, uint8_t kind, const char *name)
{
	s->source.fd = -1;
	s->container = c;
	s->kind = kind;
	s->log.name = name;
}

struct container *container_add(struct monitor *m, const char *id, uint8_t flags)
{
	struct container *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	memcpy(c->id, id, GM_ID_LENGTH);
	c->state = GM_STATE_CREATING;
	c->flags = flags;
	c->exit_fd = -1;
	c->log.fd = -1;
	c->in.fd = -1;
	stream_init(c, &c->out, GM_STREAM_STDOUT, "stdout");
	stream_init(c, &c->err, GM_STREAM_STDERR, "stderr");
	c->next = m->containers;
	m->containers = c;
	m->container_count++;
	return c;
}

void container_remove(struct monitor *m, struct container *c)
{
	struct container **at = &m->containers;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	m->container_count--;
	attach_exited(m, c);
	stdin_close(m, c);
	stream_end(m, &c->out);
	stream_end(m, &c->err);
	log_close(&c->log);
	close_fd(&c->exit_fd);
	if (c->creation)
		creation_free(m, c);
	free(c->oom_file);
	free(c->journal_fields);
	loop_bury(m, &c->grave);
}

void container_created(struct monitor *m, struct container *c, pid_t pid)
{
	c->pid = pid;
	c->state = GM_STATE_RUNNING;
	oom_begin(m, c);
	if (stream_start(m, &c->out) < 0)
		stream_end(m, &c->out);
	if (c->err.source.fd >= 0 && stream_start(m, &c->err) < 0)
		stream_end(m, &c->err);
}

static void write_record(struct monitor *m, struct container *c)
{
	c->exit.log_lost = c->log.lost;
	if (record_write(c->exit_fd, &c->exit) == 0)
		close_fd(&c->exit_fd);
	else
		loop_at(m, m->now + RECORD_RETRY_MS);
}

/*
 * A container's process is gone. What it has written is logged, then the exit
 * is recorded, then told. A process that it left behind may keep its output
 * open: that is logged for as long as it comes, and nothing waits for it.
 */
static void container_exited(struct monitor *m, struct container *c, int status, uint64_t peak)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	c->state = GM_STATE_EXITED;
	record_status(&c->exit, status);
	c->exit.finished = now.tv_sec * 1000000000LL + now.tv_nsec;
	c->exit.oom_killed = oom_killed(m, c, peak);
	stream_drain(m, &c->out);
	stream_drain(m, &c->err);
	write_record(m, c);
	clients_tell_exit(m, NULL, c);
	attach_exited(m, c);
	stdin_close(m, c);
}

void container_judge_log(struct monitor *m, struct container *c)
{
	if (c->log.retry_at != 0) {
		c->log_sane_at = 0;
		if (!c->log_failing) {
			c->log_failing = true;
			clients_tell_log(m, NULL, c);
		}
		c->log_look_at = m->now + LOG_LOOK_MS;
		loop_at(m, c->log_look_at);
	} else if (c->log_failing && c->log_sane_at == 0) {
		c->log_sane_at = m->now + LOG_SANE_MS;
		loop_at(m, c->log_sane_at);
	}
}

/* A container that says nothing more does not try its log either. */
static void look_at_log(struct monitor *m, struct container *c)
{
	if (c->log.retry_at == 0 || c->log.fd < 0)
		return;
	if (m->now >= c->log_look_at) {
		c->log_look_at = m->now + LOG_LOOK_MS;
		if (logfile_has_room(&c->log)) {
			c->log.retry_at = 0;
			container_judge_log(m, c);
			return;
		}
	}
	loop_at(m, c->log_look_at);
}

static void log_timers(struct monitor *m, struct container *c)
{
	look_at_log(m, c);
	if (c->log_sane_at == 0)
		return;
	if (m->now < c->log_sane_at) {
		loop_at(m, c->log_sane_at);
		return;
	}
	c->log_sane_at = 0;
	c->log_failing = false;
	clients_tell_log(m, NULL, c);
}

void container_describe(struct wire_writer *w, const struct container *c)
{
	wire_put_string(w, GM_TAG_CONTAINER, c->id);
	wire_put_u32(w, GM_TAG_STATE, c->state);
	wire_put_u32(w, GM_TAG_PID, (uint32_t)c->pid);
	wire_put_u64(w, GM_TAG_LOG_LOST, c->log.lost);
	if (c->state != GM_STATE_EXITED)
		return;
	wire_put_u32(w, GM_TAG_EXIT_CODE, c->exit.code);
	wire_put_u32(w, GM_TAG_SIGNAL, c->exit.signal);
	wire_put_u32(w, GM_TAG_OOM_KILLED, c->exit.oom_killed);
	wire_put_u64(w, GM_TAG_FINISHED, (uint64_t)c->exit.finished);
}

bool containers_busy(const struct monitor *m)
{
	for (const struct container *c = m->containers; c; c = c->next)
		if (c->state != GM_STATE_EXITED)
			return true;
	return false;
}

bool containers_know(const struct monitor *m, pid_t pid)
{
	for (const struct container *c = m->containers; c; c = c->next)
		if ((c->state == GM_STATE_RUNNING && c->pid == pid) || (c->creation && creation_runtime(c) == pid))
			return true;
	return false;
}

/* Collects one dead child and acts on it. Several containers may have one
 * process: a runtime with a sandbox of its own names that for all of them. */
static void reap(struct monitor *m, pid_t pid)
{
	struct container *next;
	struct rusage used;
	int status;

	if (wait4(pid, &status, WNOHANG | __WALL, &used) != pid)
		return;
	for (struct container *c = m->containers; c; c = next) {
		next = c->next;
		if (c->creation && creation_runtime(c) == pid)
			creation_finish(m, c, status);
		else if (c->state == GM_STATE_RUNNING && c->pid == pid)
			container_exited(m, c, status, (uint64_t)used.ru_maxrss * 1024);
	}
}

static void reap_runtimes(struct monitor *m)
{
	struct container *next;

	for (struct container *c = m->containers; c; c = next) {
		next = c->next;
		if (c->creation)
			reap(m, creation_runtime(c));
	}
}

void containers_reap(struct monitor *m)
{
	for (;;) {
		siginfo_t child = { .si_pid = 0 };

		if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 || child.si_pid == 0)
			return;
		/* A container that is dead already becomes ours when its runtime
		 * ends; only that runtime's pid file tells whose it is. */
		if (!containers_know(m, child.si_pid))
			reap_runtimes(m);
		reap(m, child.si_pid);
	}
}

void containers_timers(struct monitor *m)
{
	struct container *next;

	for (struct container *c = m->containers; c; c = next) {
		next = c->next;
		if (c->state == GM_STATE_EXITED && c->exit_fd >= 0)
			write_record(m, c);
		log_timers(m, c);
		stream_timers(m, &c->out);
		stream_timers(m, &c->err);
		attach_timers(m, c);
		if (c->creation)
			creation_timers(m, c);
	}
}

void containers_forget_client(struct monitor *m, const struct client *client)
{
	for (struct container *c = m->containers; c; c = c->next)
		if (c->creation)
			creation_forget_client(c, client);
}
