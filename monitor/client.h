/* Connections of daemons: requests in, replies and exit events out. */
#ifndef GANTRY_CLIENT_H
#define GANTRY_CLIENT_H

#include "monitor.h"
#include "text.h"
#include "wire.h"

/* What a client does not read is kept up to so many bytes; then it is disconnected. */
#define CLIENT_QUEUE (256 * 1024)

struct packet;

struct client {
	struct grave grave;
	struct client *next;
	struct source source;
	struct packet *first, **last; /* unsent messages */
	size_t queued;		      /* their bytes */
	bool subscribed;
	struct attachment *attachment; /* not NULL: the connection carries stream packets */
};

/* A request that is being handled. */
struct call {
	struct client *client;
	uint64_t id;
	struct wire_reader fields;
};

/* Listens: m->listener.fd is a listening socket. 0 or a negative errno. */
int clients_open(struct monitor *m);
void clients_timers(struct monitor *m);
/* Disconnects everyone. */
void clients_close(struct monitor *m);

/* Disconnects. The client's memory lives until the events at hand are done. */
void client_drop(struct monitor *m, struct client *c);

/* Sends one message, or queues it; never waits. Drops a client that reads too little. */
void client_send(struct monitor *m, struct client *c, const struct wire_writer *w);

/* Starts a reply in the scratch buffers; finish it with client_send. */
struct wire_writer client_reply(struct monitor *m, uint64_t id);
void client_succeed(struct monitor *m, const struct call *call);
/* Answers with an errno and, if words is not NULL, an explanation. */
void client_fail(struct monitor *m, const struct call *call, int error, const char *words);

/* Tells all subscribers, or only one if it is given, that a container has exited. */
void clients_tell_exit(struct monitor *m, struct client *only, const struct container *c);

/* The same of the state of its log. */
void clients_tell_log(struct monitor *m, struct client *only, const struct container *c);

/* Handles one message of a client (requests.c). */
void request_handle(struct monitor *m, struct client *c, const void *message, size_t len);

#endif
