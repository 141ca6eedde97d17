/* Standard input: from attached clients to the container's pipe or terminal. */
#include <sys/epoll.h>

#include "attach.h"
#include "sys.h"

/* Writes what there is room for; -1 if nobody will ever read it. */
static ssize_t write_some(const struct container *c, const uint8_t *data, size_t len)
{
	ssize_t n = write(c->in.fd, data, len);

	return n < 0 && errno == EAGAIN ? 0 : n;
}

static bool input_waits(const struct container *c)
{
	for (const struct attachment *a = c->attachments; a; a = a->next)
		if (a->input)
			return true;
	return false;
}

/* Lets a client send again. */
static void resume(struct monitor *m, struct attachment *a)
{
	free(a->input);
	a->input = NULL;
	attach_watch(m, a);
}

void stdin_close(struct monitor *m, struct container *c)
{
	if (c->in.fd < 0)
		return;
	if (c->in_watched)
		loop_unwatch(m, &c->in);
	close_fd(&c->in.fd);
	for (struct attachment *a = c->attachments; a; a = a->next)
		if (a->input)
			resume(m, a);
}

void stdin_finish(struct monitor *m, struct container *c)
{
	c->in_closing = true;
	if (!input_waits(c))
		stdin_close(m, c);
}

/* Writes a client's waiting input. False: no room for all of it, or no reader. */
static bool write_waiting(struct monitor *m, struct container *c, struct attachment *a)
{
	ssize_t n = write_some(c, a->input + a->input_at, a->input_len - a->input_at);

	if (n < 0) {
		stdin_close(m, c);
		return false;
	}
	a->input_at += (size_t)n;
	if (a->input_at < a->input_len)
		return false;
	resume(m, a);
	return true;
}

/* There is room in the pipe again. */
static void stdin_ready(struct monitor *m, struct source *s, uint32_t events)
{
	struct container *c = owner_of(s, struct container, in);

	(void)events;
	for (struct attachment *a = c->attachments; a; a = a->next)
		if (a->input && !write_waiting(m, c, a))
			return;
	loop_unwatch(m, &c->in);
	c->in_watched = false;
	if (c->in_closing)
		stdin_close(m, c);
}

bool stdin_take(struct monitor *m, struct attachment *a, const uint8_t *data, size_t len)
{
	struct container *c = a->container;
	ssize_t n;

	if (!c || c->in.fd < 0 || !(a->flags & GM_ATTACH_STDIN))
		return true;
	n = write_some(c, data, len);
	if (n < 0) {
		stdin_close(m, c);
		return true;
	}
	if ((size_t)n == len)
		return true;
	a->input_len = len - (size_t)n;
	a->input_at = 0;
	a->input = malloc(a->input_len);
	if (!a->input)
		return true;
	memcpy(a->input, data + n, a->input_len);
	if (!c->in_watched) {
		c->in.ready = stdin_ready;
		c->in_watched = loop_watch(m, &c->in, EPOLLOUT) == 0;
	}
	return false;
}

void stdin_client_ended(struct monitor *m, struct attachment *a)
{
	struct container *c = a->container;

	if (!c || !(a->flags & GM_ATTACH_STDIN))
		return;
	a->flags &= (uint8_t)~GM_ATTACH_STDIN;
	/* A terminal has no end of input: who used it once may come back. */
	if (c->flags & GM_STDIN_ONCE && !(c->flags & GM_TTY))
		stdin_finish(m, c);
}
