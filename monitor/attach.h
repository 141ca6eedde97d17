/*
 * Attached clients: connections that carry a container's streams.
 *
 * What a client does not read in time stays in its socket's buffer of
 * ATTACH_BUFFER bytes. When that is full the container's output is not read for
 * a moment, so that a client which reads as fast as it can misses nothing. This
 * moment is bounded by the client's credit: milliseconds, HOLD_MS at most, that
 * it earns by what it reads, at HOLD_RATE, and that pass while it has something
 * to read; as many may be owed. So one that reads faster is waited for, and one
 * that is slower, or stuck, has none but what all have at first, HOLD_FIRST_MS,
 * for a reader that has yet to begin. Without credit, output is dropped for this
 * client alone until it has read most of what it has, and a LOST packet tells how
 * much that was. Nothing is dropped for want of time once the container has
 * exited: there is nothing left to hold up.
 *
 * Input goes the other way with back pressure: while the container does not
 * read, neither do we.
 */
#ifndef GANTRY_ATTACH_H
#define GANTRY_ATTACH_H

#include "client.h"
#include "container.h"

/* The kernel doubles it, for what it needs itself. */
#define ATTACH_BUFFER (4 * 1024 * 1024)
#define HOLD_MS 500
#define HOLD_FIRST_MS 50
/* Bytes a millisecond: 4 MiB/s. */
#define HOLD_RATE (4 * 1024)
/* The most that is kept for a client beside its socket's buffer: what a read
 * brought before the container was held up, and the last output of one that has
 * exited. */
#define UNSENT_MAX (5 * 1024 * 1024)

struct unsent;

struct attachment {
	struct attachment *next; /* of the same container */
	struct client *client;
	struct container *container; /* NULL once it has exited */
	uint8_t flags;		     /* GM_ATTACH_...: streams that have not ended */
	bool unwatched;		     /* epoll does not look at the connection */
	uint8_t ended;		     /* streams whose end must be sent: 1 << kind */
	bool exited;		     /* the exit must be sent */
	struct exit_state exit;
	struct unsent *first, **last; /* packets for which there was no room */
	size_t unsent;		      /* their bytes */
	bool holding;		      /* it holds the container's output up */
	bool behind;		      /* it had something to read when it was judged last */
	uint64_t judged;	      /* when its credit was judged last */
	int64_t credit;		      /* milliseconds for which it may hold it up, or that it owes */
	uint64_t sent, read;	      /* bytes in all, as of then */
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

/* Whether an attached client holds the container's output up. */
bool attach_holds(const struct container *c);

/* Judges those that hold it up. */
void attach_timers(struct monitor *m, struct container *c);

/* An attached client is gone. */
void attach_end(struct monitor *m, struct client *client);

/* Sends output to every attached client that wants it. */
void attach_output(struct monitor *m, struct container *c, uint8_t kind, const char *data, size_t len);

/* A stream has ended: says so. */
void attach_stream_ended(struct monitor *m, struct container *c, uint8_t kind);

/* The container has exited: says so and ends all its attachments. */
void attach_exited(struct monitor *m, struct container *c);

/* Credit (hold.c). */

/* Holds the container up until there is room. False: the client has no credit. */
bool hold_begin(struct monitor *m, struct attachment *a);
/* Whether it may hold it up longer. */
bool hold_goes_on(struct monitor *m, struct attachment *a);
/* Lets the container's output come again, as far as this client goes. */
void hold_release(struct monitor *m, struct attachment *a);
/* Accounts for the time since the client was judged last, if it had something to
 * read in it, and for what it has read meanwhile. */
void hold_judge(struct monitor *m, struct attachment *a);

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
