#include "client.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include "attach.h"
#include "container.h"
#include "sys.h"

/* After a failed accept (no descriptor left) the listener rests so long. */
#define ACCEPT_REST_MS 500

struct packet {
	struct packet *next;
	size_t len;
	uint8_t data[];
};

static void free_packets(struct client *c)
{
	while (c->first) {
		struct packet *p = c->first;

		c->first = p->next;
		free(p);
	}
}

void client_drop(struct monitor *m, struct client *c)
{
	struct client **at = &m->clients;

	if (c->source.fd < 0)
		return;
	loop_close(m, &c->source);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	m->client_count--;
	free_packets(c);
	containers_forget_client(m, c);
	if (c->attachment)
		attach_end(m, c);
	loop_bury(m, &c->grave);
}

/* Sends what is queued, as far as the socket takes it. */
static void send_queue(struct monitor *m, struct client *c)
{
	while (c->first) {
		struct packet *p = c->first;

		if (send(c->source.fd, p->data, p->len, MSG_NOSIGNAL) < 0) {
			if (errno != EAGAIN)
				client_drop(m, c);
			return;
		}
		c->queued -= p->len;
		c->first = p->next;
		free(p);
	}
	c->last = &c->first;
	loop_rewatch(m, &c->source, EPOLLIN);
}

static void enqueue(struct monitor *m, struct client *c, const void *data, size_t len)
{
	struct packet *p = NULL;

	if (c->queued + len <= CLIENT_QUEUE)
		p = malloc(sizeof(*p) + len);
	if (!p) {
		client_drop(m, c);
		return;
	}
	p->next = NULL;
	p->len = len;
	memcpy(p->data, data, len);
	if (!c->first)
		loop_rewatch(m, &c->source, EPOLLIN | EPOLLOUT);
	*c->last = p;
	c->last = &p->next;
	c->queued += len;
}

void client_send(struct monitor *m, struct client *c, const struct wire_writer *w)
{
	if (c->source.fd < 0 || w->full)
		return;
	if (!c->first && send(c->source.fd, w->buf, w->len, MSG_NOSIGNAL) >= 0)
		return;
	if (c->first || errno == EAGAIN)
		enqueue(m, c, w->buf, w->len);
	else
		client_drop(m, c);
}

struct wire_writer client_reply(struct monitor *m, uint64_t id)
{
	struct wire_writer w = { .buf = loop_scratch(m)->reply, .cap = GM_MAX_MESSAGE };

	wire_begin(&w, GM_REPLY, id);
	return w;
}

void client_succeed(struct monitor *m, const struct call *call)
{
	struct wire_writer w = client_reply(m, call->id);

	client_send(m, call->client, &w);
}

void client_fail(struct monitor *m, const struct call *call, int error, const char *words)
{
	struct wire_writer w = client_reply(m, call->id);

	wire_put_u32(&w, GM_TAG_ERRNO, (uint32_t)error);
	if (words)
		wire_put_string(&w, GM_TAG_ERROR, words);
	client_send(m, call->client, &w);
}

/* Sends an event to all subscribers, or only to one if it is given. */
static void tell(struct monitor *m, struct client *only, const struct wire_writer *w)
{
	struct client *next;

	if (only) {
		client_send(m, only, w);
		return;
	}
	for (struct client *each = m->clients; each; each = next) {
		next = each->next;
		if (each->subscribed)
			client_send(m, each, w);
	}
}

void clients_tell_exit(struct monitor *m, struct client *only, const struct container *c)
{
	struct wire_writer w = client_reply(m, 0);

	wire_begin(&w, GM_EXIT, 0);
	container_describe(&w, c);
	tell(m, only, &w);
}

void clients_tell_log(struct monitor *m, struct client *only, const struct container *c)
{
	struct wire_writer w = client_reply(m, 0);

	wire_begin(&w, GM_LOG, 0);
	wire_put_string(&w, GM_TAG_CONTAINER, c->id);
	wire_put_u64(&w, GM_TAG_LOG_LOST, c->log.lost);
	if (c->log_failing)
		wire_put_u32(&w, GM_TAG_ERRNO, (uint32_t)c->log.error);
	tell(m, only, &w);
}

static void receive(struct monitor *m, struct client *c)
{
	uint8_t *buf = loop_scratch(m)->message;
	ssize_t n = recv(c->source.fd, buf, GM_MAX_MESSAGE + 1, 0);

	if (n > 0)
		request_handle(m, c, buf, (size_t)n);
	else if (n == 0 || errno != EAGAIN)
		client_drop(m, c);
}

static void client_ready(struct monitor *m, struct source *s, uint32_t events)
{
	struct client *c = owner_of(s, struct client, source);

	if (c->attachment) {
		attach_ready(m, c, events);
		return;
	}
	if (events & EPOLLOUT)
		send_queue(m, c);
	if (c->source.fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(m, c);
}

/* Only the monitor's own user may talk to it. */
static bool trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

static void listener_ready(struct monitor *m, struct source *s, uint32_t events)
{
	AUTO_CLOSE int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	(void)events;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
		loop_rewatch(m, s, 0);
		m->accept_due = m->now + ACCEPT_REST_MS;
		loop_at(m, m->accept_due);
	}
	if (fd < 0 || !trusted(fd) || m->client_count == MAX_CLIENTS)
		return;
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->source.fd = fd;
	c->source.ready = client_ready;
	c->last = &c->first;
	if (loop_watch(m, &c->source, EPOLLIN) < 0) {
		free(c);
		return;
	}
	take_fd(&fd);
	c->next = m->clients;
	m->clients = c;
	m->client_count++;
}

void clients_timers(struct monitor *m)
{
	if (m->accept_due == 0)
		return;
	if (m->now < m->accept_due) {
		loop_at(m, m->accept_due);
		return;
	}
	m->accept_due = 0;
	loop_rewatch(m, &m->listener, EPOLLIN);
}

int clients_open(struct monitor *m)
{
	m->listener.ready = listener_ready;
	return loop_watch(m, &m->listener, EPOLLIN);
}

void clients_close(struct monitor *m)
{
	while (m->clients)
		client_drop(m, m->clients);
	loop_close(m, &m->listener);
}
