/*
 * Attached clients: connections that carry a container's streams.
 *
 * Nobody waits for a client. What it does not read in time stays in its
 * socket's buffer up to ATTACH_BUFFER bytes; what comes then is dropped for this
 * client alone, and a LOST packet tells how much once it reads again. Input goes
 * the other way with back pressure: while the container does not read, neither
 * do we.
 */
#ifndef GANTRY_ATTACH_H
#define GANTRY_ATTACH_H

#include "client.h"
#include "container.h"

#define ATTACH_BUFFER (2 * 1024 * 1024)

struct attachment {
	struct attachment *next; /* of the same container */
	struct client *client;
	struct container *container; /* NULL once it has exited */
	uint8_t flags;		     /* GM_ATTACH_...: streams that have not ended */
	bool unwatched;		     /* epoll does not look at the connection */
	uint8_t ended;		     /* streams whose end must be sent: 1 << kind */
	bool exited;		     /* the exit must be sent */
	struct exit_state exit;
	uint64_t lost;	/* bytes dropped since the last LOST packet */
	uint8_t *input; /* input that the container has not taken yet */
	size_t input_len, input_at;
};

/* Handles a GM_ATTACH request. */
void attach_handle(struct monitor *m, const struct call *call, struct container *c, uint32_t flags);

/* An attached client's connection has something to say, or room. */
void attach_ready(struct monitor *m, struct client *client, uint32_t events);

/* Watches the connection for what can be done now. */
void attach_watch(struct monitor *m, struct attachment *a);

/* An attached client is gone. */
void attach_end(struct monitor *m, struct client *client);

/* Sends output to every attached client that wants it. */
void attach_output(struct monitor *m, struct container *c, uint8_t kind, const char *data, size_t len);

/* A stream has ended: says so. */
void attach_stream_ended(struct monitor *m, struct container *c, uint8_t kind);

/* The container has exited: says so and ends all its attachments. */
void attach_exited(struct monitor *m, struct container *c);

/* Standard input (stdin.c). */

/* Closes it after what attached clients have sent already. */
void stdin_finish(struct monitor *m, struct container *c);
/* Closes it now. */
void stdin_close(struct monitor *m, struct container *c);
/* Takes input of a client. False: it must not send more for now. */
bool stdin_take(struct monitor *m, struct attachment *a, const uint8_t *data, size_t len);
/* The client sends no more. */
void stdin_client_ended(struct monitor *m, struct attachment *a);

#endif
