#include "stream.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include "attach.h"
#include "container.h"
#include "journal.h"
#include "sys.h"

/* Full reads in a row before other sources get their turn. */
#define BURST 8
/* An unfinished line is shown after so long. */
#define PARTIAL_MS 1000
/* What the pipe of a container that writes much is enlarged to. */
#define PIPE_SIZE (1024 * 1024)
/* The most that a pipe or terminal can hold, with some to spare. */
#define DRAIN_MAX (2 * PIPE_SIZE)

/* A batch of records, and what its tap needs to know. */
struct output {
	struct log_batch batch;
	struct monitor *monitor;
	struct container *container;
};

static void send_to_journal(const struct log_batch *b, const char *records, size_t len)
{
	const struct output *o = owner_of(b, struct output, batch);

	journal_send(o->monitor, o->container, records, len);
}

static void begin(struct monitor *m, struct stream *s, struct output *o)
{
	struct log_batch *b = &o->batch;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	o->monitor = m;
	o->container = s->container;
	b->sink = &s->container->log;
	b->stream = &s->log;
	b->buf = loop_scratch(m)->records;
	b->now_ms = m->now;
	log_begin(b, &m->log_time, &now);
	b->force = s->container->state == GM_STATE_EXITED; /* it may be the last chance */
	if (s->container->journal_fields)
		b->tap = send_to_journal;
}

static bool wanted(const struct container *c)
{
	return c->log.fd >= 0 || c->journal_fields;
}

static void finish(struct output *o)
{
	log_flush(&o->batch);
	container_judge_log(o->monitor, o->container);
}

/* Keeps the unfinished line until its rest comes. */
static bool keep(struct monitor *m, struct stream *s, const char *data, size_t len)
{
	if (len == 0) {
		free(s->carry);
		s->carry = NULL;
		s->carry_len = 0;
		return true;
	}
	if (!s->carry) {
		s->carry = malloc(LOG_CHUNK);
		if (!s->carry)
			return false;
	}
	if (s->carry_len == 0) {
		s->carry_due = m->now + PARTIAL_MS;
		loop_at(m, s->carry_due);
	}
	memcpy(s->carry, data, len);
	s->carry_len = len;
	return true;
}

/* Logs new output, which stands in the input buffer behind the carried part. */
static void write_log(struct monitor *m, struct stream *s, const char *input, size_t len)
{
	struct output o;
	size_t taken;

	if (!wanted(s->container))
		return;
	begin(m, s, &o);
	taken = log_lines(&o.batch, input, len);
	if (taken > 0)
		s->carry_len = 0; /* what is left is of another line */
	if (!keep(m, s, input + taken, len - taken))
		log_partial(&o.batch, input + taken, len - taken);
	finish(&o);
}

static void grow(struct stream *s)
{
	s->grown = true;
	fcntl(s->source.fd, F_SETPIPE_SZ, PIPE_SIZE);
}

/*
 * A terminal's master reads as broken while nobody holds the other end, which
 * may still be opened again as long as the container runs. Edge triggered, it
 * tells when there is something new without waking us all the time.
 */
static void hang_up(struct monitor *m, struct stream *s, bool hung_up)
{
	if (s->hung_up == hung_up)
		return;
	s->hung_up = hung_up;
	loop_rewatch(m, &s->source, hung_up ? EPOLLIN | EPOLLET : EPOLLIN);
}

/* Handles a read that brought nothing. */
static void nothing_read(struct monitor *m, struct stream *s, ssize_t n)
{
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 && errno == EIO && s->container->flags & GM_TTY && s->container->state == GM_STATE_RUNNING) {
		hang_up(m, s, true);
		return;
	}
	stream_end(m, s);
}

/* Reads once. Returns how much, 0 if there is nothing more for now. */
static size_t read_once(struct monitor *m, struct stream *s)
{
	char *input = loop_scratch(m)->input;
	ssize_t n = read(s->source.fd, input + s->carry_len, STREAM_READ);

	if (n <= 0) {
		nothing_read(m, s, n);
		return 0;
	}
	hang_up(m, s, false);
	if (n == STREAM_READ && !s->grown)
		grow(s);
	if (s->container->attachments)
		attach_output(m, s->container, s->kind, input + s->carry_len, (size_t)n);
	if (s->carry_len > 0)
		memcpy(input, s->carry, s->carry_len);
	write_log(m, s, input, s->carry_len + (size_t)n);
	return (size_t)n;
}

/* Whether nothing is to be read for now. */
static bool must_wait(const struct monitor *m, const struct container *c)
{
	return attach_holds(c) || (c->journal_fields && journal_full(m));
}

static void stream_ready(struct monitor *m, struct source *source, uint32_t events)
{
	struct stream *s = owner_of(source, struct stream, source);

	(void)events;
	for (int i = 0; i < BURST && s->source.fd >= 0; i++) {
		if (must_wait(m, s->container)) {
			loop_unwatch(m, &s->source);
			s->paused = true;
			return;
		}
		if (read_once(m, s) < STREAM_READ)
			return;
	}
}

void stream_resume(struct monitor *m, struct stream *s)
{
	if (!s->paused || s->source.fd < 0 || must_wait(m, s->container))
		return;
	s->paused = false;
	loop_watch(m, &s->source, s->hung_up ? EPOLLIN | EPOLLET : EPOLLIN);
}

int stream_start(struct monitor *m, struct stream *s)
{
	s->source.ready = stream_ready;
	if (fcntl(s->source.fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return loop_watch(m, &s->source, EPOLLIN);
}

void stream_drain(struct monitor *m, struct stream *s)
{
	size_t total = 0, n;

	while (s->source.fd >= 0 && total < DRAIN_MAX && (n = read_once(m, s)) > 0)
		total += n;
}

void stream_end(struct monitor *m, struct stream *s)
{
	struct container *c = s->container;
	struct output o;

	if (s->source.fd < 0)
		return;
	loop_close(m, &s->source);
	if (wanted(c)) {
		begin(m, s, &o);
		log_end(&o.batch, s->carry ? s->carry : "", s->carry_len);
		finish(&o);
	}
	keep(m, s, NULL, 0);
	if (c->out.source.fd < 0 && c->err.source.fd < 0)
		log_close(&c->log);
	attach_stream_ended(m, c, s->kind);
}

void stream_timers(struct monitor *m, struct stream *s)
{
	struct output o;

	if (s->carry_len == 0)
		return;
	if (s->paused) /* its rest may be there already */
		s->carry_due = m->now + PARTIAL_MS;
	if (m->now < s->carry_due) {
		loop_at(m, s->carry_due);
		return;
	}
	begin(m, s, &o);
	log_partial(&o.batch, s->carry, s->carry_len);
	finish(&o);
	keep(m, s, NULL, 0);
}
