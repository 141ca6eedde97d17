/*
 * RUNTIME create: from the request to the reply. Several may be under way; a
 * second request for the same container waits for the first one's result.
 */
#ifndef GANTRY_CREATE_H
#define GANTRY_CREATE_H

#include "client.h"
#include "container.h"

struct waiter {
	struct waiter *next;
	struct client *client;
	uint64_t id;
};

/* What is needed only until the runtime has ended. */
struct creation {
	struct grave grave;
	pid_t runtime;
	struct source words;	/* the runtime's stderr; later the container's */
	struct source console;	/* the socket that the terminal comes through */
	int master;		/* the terminal, once it has come */
	char *console_path;
	char *pid_file;
	char *exit_file;
	uint64_t due;	/* when the runtime is killed, then when it is given up */
	bool killed;	/* it took too long */
	bool given_up;	/* it did not even die: the waiters have been told */
	struct waiter *waiters;
	size_t output_len;
	char output[GM_MAX_OUTPUT];
};

/* Handles a GM_CREATE request. */
void create_handle(struct monitor *m, const struct call *call);

pid_t creation_runtime(const struct container *c);
/* The runtime has ended with this status of waitpid; c may be gone afterwards. */
void creation_finish(struct monitor *m, struct container *c, int status);
void creation_timers(struct monitor *m, struct container *c);
void creation_forget_client(struct container *c, const struct client *client);
/* Releases c->creation. A failed create leaves no file behind. */
void creation_free(struct monitor *m, struct container *c);

/* Waiters (waiter.c). */
int creation_add_waiter(struct creation *creation, const struct call *call);
/* Answers a request for a container that there is already. */
void creation_join(struct monitor *m, struct container *c, const struct call *call);
/* Tell all waiters the result. status is the runtime's, if it has ended. */
void creation_tell_pid(struct monitor *m, struct container *c);
void creation_tell_failure(struct monitor *m, struct container *c, int error, const char *words, const int *status);

/* The socket to which the runtime sends the terminal (console.c). */
int console_listen(struct monitor *m, struct creation *creation, const char *path);
/* Takes what has come; the terminal is in creation->master or will never come. */
void console_finish(struct monitor *m, struct creation *creation);
void console_close(struct monitor *m, struct creation *creation);

/* The child's standard streams. */
struct child_io {
	int in, out, err;
};

/* Becomes the runtime in the container's mount namespace (child.c). */
__attribute__((noreturn)) void child_run(const struct monitor *m, const struct create_request *r,
					 const struct child_io *io, const int *namespaces);

#endif
