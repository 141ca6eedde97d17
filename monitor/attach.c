#include "attach.h"

#include <endian.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "sys.h"

#define ALL_STREAMS (GM_ATTACH_STDIN | GM_ATTACH_STDOUT | GM_ATTACH_STDERR)

/* A packet that waits for room. */
struct unsent {
	struct unsent *next;
	size_t len;
	uint8_t kind;
	uint8_t data[];
};

static uint8_t flag_of(uint8_t kind)
{
	return (uint8_t)(1 << kind);
}

/* Sends one packet: 0, -EAGAIN if there is no room, or another negative errno. */
static int send_packet(const struct attachment *a, uint8_t kind, const void *data, size_t len)
{
	struct iovec parts[] = { { .iov_base = &kind, .iov_len = 1 }, { .iov_base = (void *)data, .iov_len = len } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (sendmsg(a->client->source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 0;
	return errno == ENOBUFS ? -EAGAIN : -errno;
}

static bool owes(const struct attachment *a)
{
	return a->first || a->lost > 0 || a->ended != 0 || a->exited;
}

static void drop_unsent(struct attachment *a)
{
	while (a->first) {
		struct unsent *p = a->first;

		a->first = p->next;
		free(p);
	}
	a->last = &a->first;
	a->unsent = 0;
}

/* Keeps a packet until there is room. False: it must be dropped. */
static bool keep(struct monitor *m, struct attachment *a, uint8_t kind, const char *data, size_t len)
{
	bool running = a->container->state == GM_STATE_RUNNING;
	struct unsent *p;

	if (a->unsent + len > UNSENT_MAX || (running && !a->holding && !hold_begin(m, a)))
		return false;
	p = malloc(sizeof(*p) + len);
	if (!p)
		return false;
	p->next = NULL;
	p->kind = kind;
	p->len = len;
	memcpy(p->data, data, len);
	*a->last = p;
	a->last = &p->next;
	a->unsent += len;
	if (a->first == p)
		attach_watch(m, a);
	return true;
}

/* The client had its time: what has no room is dropped. */
static void give_up(struct monitor *m, struct attachment *a)
{
	hold_release(m, a);
	a->lost += a->unsent;
	drop_unsent(a);
	attach_watch(m, a);
}

/* The client does not read any more; its input may still come. */
static void stop_sending(struct monitor *m, struct attachment *a)
{
	a->flags &= GM_ATTACH_STDIN;
	a->lost = 0;
	a->ended = 0;
	drop_unsent(a);
	hold_release(m, a);
}

void attach_timers(struct monitor *m, struct container *c)
{
	for (struct attachment *a = c->attachments; a; a = a->next)
		if (a->holding && !hold_goes_on(m, a))
			give_up(m, a);
}

void attach_watch(struct monitor *m, struct attachment *a)
{
	uint32_t events = (a->input ? 0 : EPOLLIN) | (owes(a) ? EPOLLOUT : 0);

	if (!a->unwatched) {
		loop_rewatch(m, &a->client->source, events);
	} else {
		a->unwatched = false;
		loop_watch(m, &a->client->source, events);
	}
}

static int send_unsent(struct attachment *a)
{
	while (a->first) {
		struct unsent *p = a->first;
		int rc = send_packet(a, p->kind, p->data, p->len);

		if (rc < 0)
			return rc;
		a->sent += p->len;
		a->unsent -= p->len;
		a->first = p->next;
		if (!a->first)
			a->last = &a->first;
		free(p);
	}
	return 0;
}

static int send_lost(struct attachment *a)
{
	uint64_t raw = htole64(a->lost);
	int rc = send_packet(a, GM_STREAM_LOST, &raw, sizeof(raw));

	if (rc == 0)
		a->lost = 0;
	return rc;
}

static int send_ends(struct attachment *a)
{
	int rc = 0;

	for (uint8_t kind = GM_STREAM_STDOUT; rc == 0 && kind <= GM_STREAM_STDERR; kind++) {
		if (!(a->ended & flag_of(kind)))
			continue;
		rc = send_packet(a, kind, NULL, 0);
		if (rc == 0)
			a->ended &= (uint8_t)~flag_of(kind);
	}
	return rc;
}

static int send_exit(struct attachment *a)
{
	uint32_t raw[2] = { htole32(a->exit.code), htole32(a->exit.signal) };

	return send_packet(a, GM_STREAM_EXIT, raw, sizeof(raw));
}

/* Sends what is owed to the client, in order; drops it after the last packet. */
static void settle(struct monitor *m, struct attachment *a)
{
	int rc = send_unsent(a);

	if (rc == 0) {
		hold_judge(m, a);
		hold_release(m, a);
	}
	if (rc == 0 && a->lost > 0)
		rc = send_lost(a);
	if (rc == 0)
		rc = send_ends(a);
	if (rc == 0 && a->exited)
		rc = send_exit(a);
	if (a->exited && rc != -EAGAIN) {
		client_drop(m, a->client);
		return;
	}
	if (rc < 0 && rc != -EAGAIN)
		stop_sending(m, a);
	attach_watch(m, a);
}

static void send_output(struct monitor *m, struct attachment *a, uint8_t kind, const char *data, size_t len)
{
	if (m->now != a->judged)
		hold_judge(m, a);
	/* Once something is lost, all is until the socket is mostly empty:
	 * one gap instead of many. */
	while (len > 0 && a->lost == 0) {
		size_t part = smaller(len, GM_STREAM_MAX);
		int rc = a->first ? -EAGAIN : send_packet(a, kind, data, part);

		if (rc == 0)
			a->sent += part;
		else if (rc == -EAGAIN && !keep(m, a, kind, data, part))
			break;
		else if (rc != -EAGAIN) {
			stop_sending(m, a);
			return;
		}
		data += part;
		len -= part;
	}
	if (len == 0)
		return;
	a->lost += len;
	if (a->lost == len)
		attach_watch(m, a);
}

void attach_output(struct monitor *m, struct container *c, uint8_t kind, const char *data, size_t len)
{
	for (struct attachment *a = c->attachments; a; a = a->next)
		if (a->flags & flag_of(kind))
			send_output(m, a, kind, data, len);
}

void attach_stream_ended(struct monitor *m, struct container *c, uint8_t kind)
{
	struct attachment *next;

	for (struct attachment *a = c->attachments; a; a = next) {
		next = a->next;
		if (!(a->flags & flag_of(kind)))
			continue;
		a->flags &= (uint8_t)~flag_of(kind);
		a->ended |= flag_of(kind);
		if (a->lost == 0 && !a->first)
			settle(m, a);
	}
}

static void free_input(struct attachment *a)
{
	free(a->input);
	a->input = NULL;
}

void attach_exited(struct monitor *m, struct container *c)
{
	while (c->attachments) {
		struct attachment *a = c->attachments;

		c->attachments = a->next;
		hold_release(m, a);
		a->container = NULL;
		a->exited = true;
		a->exit = c->exit;
		free_input(a);
		if (a->lost == 0 && !a->first)
			settle(m, a);
		else
			attach_watch(m, a);
	}
}

void attach_end(struct monitor *m, struct client *client)
{
	struct attachment *a = client->attachment;
	struct container *c = a->container;

	client->attachment = NULL;
	free_input(a);
	drop_unsent(a);
	if (c) {
		struct attachment **at = &c->attachments;

		while (*at != a)
			at = &(*at)->next;
		*at = a->next;
		hold_release(m, a);
		stdin_client_ended(m, a);
	}
	free(a);
}

static void receive(struct monitor *m, struct attachment *a)
{
	uint8_t *buf = loop_scratch(m)->message;
	ssize_t n = recv(a->client->source.fd, buf, GM_MAX_MESSAGE, 0);

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			client_drop(m, a->client);
		return;
	}
	if (buf[0] == GM_STREAM_STDIN && n == 1)
		stdin_client_ended(m, a);
	else if (buf[0] == GM_STREAM_STDIN && !stdin_take(m, a, buf + 1, (size_t)n - 1))
		attach_watch(m, a);
}

void attach_ready(struct monitor *m, struct client *client, uint32_t events)
{
	struct attachment *a = client->attachment;

	if (events & EPOLLOUT)
		settle(m, a);
	if (client->source.fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (!a->input) {
		receive(m, a);
		return;
	}
	/* It has hung up, but its input is not all delivered: don't look until it is. */
	loop_unwatch(m, &client->source);
	a->unwatched = true;
}

/* So many attached clients that daemons still find room. */
static bool enough_attached(const struct monitor *m)
{
	unsigned count = 0;

	for (const struct client *c = m->clients; c; c = c->next)
		count += c->attachment != NULL;
	return count >= MAX_CLIENTS / 2;
}

void attach_handle(struct monitor *m, const struct call *call, struct container *c, uint32_t flags)
{
	int fd = call->client->source.fd, size = ATTACH_BUFFER;
	struct attachment *a;

	if (c->state != GM_STATE_RUNNING) {
		client_fail(m, call, c->state == GM_STATE_CREATING ? EBUSY : ESRCH, NULL);
		return;
	}
	if (call->client->subscribed || call->client->first) {
		client_fail(m, call, EBUSY, "attach needs a connection of its own");
		return;
	}
	if (enough_attached(m)) {
		client_fail(m, call, ENOSPC, "too many attached clients");
		return;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		client_fail(m, call, ENOMEM, NULL);
		return;
	}
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	a->last = &a->first;
	a->credit = HOLD_FIRST_MS;
	a->judged = m->now;
	a->client = call->client;
	a->container = c;
	a->flags = flags & ALL_STREAMS;
	client_succeed(m, call);
	if (call->client->source.fd < 0) {
		free(a);
		return;
	}
	a->next = c->attachments;
	c->attachments = a;
	call->client->attachment = a;
	/* Streams that a container with a terminal, or one that closed them, has not. */
	if (c->out.source.fd < 0)
		a->ended |= a->flags & flag_of(GM_STREAM_STDOUT);
	if (c->err.source.fd < 0)
		a->ended |= a->flags & flag_of(GM_STREAM_STDERR);
	a->flags &= (uint8_t)~a->ended;
	settle(m, a);
}
