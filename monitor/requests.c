#include <signal.h>
#include <sys/ioctl.h>

#include "attach.h"
#include "client.h"
#include "container.h"
#include "create.h"
#include "sys.h"

/* A list reply is sent before it could outgrow a message. */
#define LIST_FULL (GM_MAX_MESSAGE - 512)

/* Handles a request whose fields are in r and whose container is c (NULL: unknown). */
typedef void handler(struct monitor *m, const struct call *call, const struct request *r, struct container *c);

static void hello(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	struct wire_writer w = client_reply(m, call->id);

	(void)r;
	(void)c;
	wire_put_u32(&w, GM_TAG_VERSION, GM_VERSION);
	wire_put_u32(&w, GM_TAG_PID, (uint32_t)getpid());
	client_send(m, call->client, &w);
}

static void subscribe(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	(void)r;
	client_succeed(m, call);
	call->client->subscribed = true;
	for (c = m->containers; c; c = c->next) {
		if (c->log_failing)
			clients_tell_log(m, call->client, c);
		if (c->state == GM_STATE_EXITED)
			clients_tell_exit(m, call->client, c);
	}
}

static void kill_container(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	if (c->state == GM_STATE_CREATING)
		client_fail(m, call, EBUSY, "the container is being created");
	else if (c->state == GM_STATE_EXITED)
		client_fail(m, call, ESRCH, NULL);
	else if (r->signal == 0 || r->signal >= _NSIG)
		client_fail(m, call, EINVAL, "no such signal");
	else if (kill(c->pid, (int)r->signal) < 0)
		client_fail(m, call, errno, NULL);
	else
		client_succeed(m, call);
}

static void reopen_log(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	int rc = c->log.fd >= 0 ? log_reopen(&c->log) : 0;

	(void)r;
	if (rc < 0)
		client_fail(m, call, -rc, c->log.path);
	else
		client_succeed(m, call);
}

static void list(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	struct wire_writer w = client_reply(m, call->id);

	(void)r;
	for (c = m->containers; c; c = c->next) {
		size_t mark;

		if (w.len > LIST_FULL) {
			wire_put_u32(&w, GM_TAG_MORE, 1);
			client_send(m, call->client, &w);
			w = client_reply(m, call->id);
		}
		mark = wire_enter(&w, GM_TAG_ENTRY);
		container_describe(&w, c);
		wire_leave(&w, mark);
	}
	client_send(m, call->client, &w);
}

static void forget(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	(void)r;
	if (c && c->state != GM_STATE_EXITED) {
		client_fail(m, call, EBUSY, "the container has not exited");
		return;
	}
	if (c)
		container_remove(m, c);
	client_succeed(m, call);
}

static void shut_down(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	(void)r;
	(void)c;
	if (containers_busy(m)) {
		client_fail(m, call, EBUSY, "a container has not exited");
		return;
	}
	m->done = true;
	client_succeed(m, call);
}

static void resize(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	struct winsize size = { .ws_col = (unsigned short)r->columns, .ws_row = (unsigned short)r->rows };

	if (!(c->flags & GM_TTY))
		client_fail(m, call, ENOTTY, "the container has no terminal");
	else if (c->state != GM_STATE_RUNNING || c->out.source.fd < 0)
		client_fail(m, call, c->state == GM_STATE_CREATING ? EBUSY : ESRCH, NULL);
	else if (ioctl(c->out.source.fd, TIOCSWINSZ, &size) < 0)
		client_fail(m, call, errno, NULL);
	else
		client_succeed(m, call);
}

static void close_stdin(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	(void)r;
	stdin_finish(m, c);
	client_succeed(m, call);
}

static void attach(struct monitor *m, const struct call *call, const struct request *r, struct container *c)
{
	attach_handle(m, call, c, r->flags);
}

static const struct {
	handler *handle;
	enum { ANY, NAMED, KNOWN } container; /* none, an id, or the id of one that is there */
} requests[] = {
	[GM_HELLO] = { hello, ANY },
	[GM_KILL] = { kill_container, KNOWN },
	[GM_REOPEN_LOG] = { reopen_log, KNOWN },
	[GM_LIST] = { list, ANY },
	[GM_FORGET] = { forget, NAMED },
	[GM_SHUTDOWN] = { shut_down, ANY },
	[GM_SUBSCRIBE] = { subscribe, ANY },
	[GM_RESIZE] = { resize, KNOWN },
	[GM_CLOSE_STDIN] = { close_stdin, KNOWN },
	[GM_ATTACH] = { attach, KNOWN },
};

static void dispatch(struct monitor *m, const struct call *call, uint16_t type)
{
	struct container *c = NULL;
	struct request r;
	int rc;

	if (type == GM_CREATE) {
		create_handle(m, call);
		return;
	}
	if (type >= sizeof(requests) / sizeof(requests[0]) || !requests[type].handle) {
		client_fail(m, call, ENOSYS, "unknown request");
		return;
	}
	rc = request_parse(call->fields, &r);
	if (rc == 0 && !r.container && requests[type].container != ANY)
		rc = -EINVAL;
	if (rc < 0) {
		client_fail(m, call, -rc, "malformed request");
		return;
	}
	if (r.container)
		c = container_find(m, r.container);
	if (!c && requests[type].container == KNOWN)
		client_fail(m, call, ENXIO, "no such container");
	else
		requests[type].handle(m, call, &r, c);
}

void request_handle(struct monitor *m, struct client *c, const void *message, size_t len)
{
	struct call call = { .client = c };
	struct wire_header header;

	if (!wire_open(&call.fields, message, len, &header) || header.id == 0) {
		client_drop(m, c); /* not our protocol */
		return;
	}
	call.id = header.id;
	if (len > GM_MAX_MESSAGE)
		client_fail(m, &call, E2BIG, "the message is too large");
	else if (header.version != GM_VERSION)
		client_fail(m, &call, EPROTONOSUPPORT, "unknown protocol version");
	else
		dispatch(m, &call, header.type);
}
