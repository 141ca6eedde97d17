/*
 * The monitor's one context and its event loop.
 *
 * One thread, one epoll set. All signals are blocked from the start; those that
 * matter come through a signalfd. Nothing in the loop waits for anything but
 * the loop itself and writes to log files.
 */
#ifndef GANTRY_MONITOR_H
#define GANTRY_MONITOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "log.h"
#include "protocol.h"
#include "request.h"

struct monitor;
struct client;
struct container;
struct journal;

/* Something that epoll watches; a member of what it belongs to. fd is -1 while there is nothing to watch. */
struct source {
	int fd;
	void (*ready)(struct monitor *m, struct source *s, uint32_t events);
};

/* Memory to be freed after the events at hand: one of them may still point to
 * it. First member of what is allocated. */
struct grave {
	struct grave *next;
};

#define STREAM_READ 65536

/* Buffers that are needed only while something is handled. Their pages go back
 * to the kernel when the monitor is idle. */
struct scratch {
	uint8_t message[GM_MAX_MESSAGE + 1];
	uint8_t reply[GM_MAX_MESSAGE];
	/* The unfinished line of a stream, then what was read after it. */
	char input[LOG_CHUNK + STREAM_READ];
	char records[LOG_BUFFER];
	struct create_request create;
};

#define MAX_CONTAINERS 512
#define MAX_CLIENTS 128

struct monitor {
	int epoll;
	struct source signals;
	struct source listener;
	struct client *clients;
	unsigned client_count;
	struct container *containers;
	unsigned container_count;
	struct journal *journal; /* NULL until a container uses it */
	struct grave *graves;
	uint64_t now;	   /* monotonic milliseconds, as of the events at hand */
	uint64_t deadline; /* when timers must run; 0: never */
	struct scratch *scratch;
	uint64_t scratch_due; /* when its pages are given back; 0: they are */
	uint64_t accept_due;  /* when the listener is watched again; 0: it is */
	struct log_time log_time;
	uint64_t oom_accounted; /* kills for lack of memory, of containers that have exited */
	uint64_t lonely_since;	/* when the last client and container went; 0: there are some */
	char oom_score_adj[8];	/* what children get back; empty: unchanged */
	mode_t umask;		/* likewise */
	struct rlimit files;	/* likewise: the limit of open files */
	bool leaving;		/* SIGTERM came: end once no container runs */
	bool done;
};

/* Prepares the epoll set, the signalfd and the scratch buffers. All signals are
 * blocked already. 0 or a negative errno. */
int loop_open(struct monitor *m);

/* Runs until m->done. */
void loop_run(struct monitor *m);

/* Frees what the loop holds. */
void loop_end(struct monitor *m);

/* Watches s->fd for events (EPOLL...); 0 or a negative errno. */
int loop_watch(struct monitor *m, struct source *s, uint32_t events);
/* Changes what is watched. */
void loop_rewatch(struct monitor *m, struct source *s, uint32_t events);
/* Stops watching and leaves s->fd open. */
void loop_unwatch(struct monitor *m, struct source *s);
/* Stops watching and closes s->fd, if it is open. */
void loop_close(struct monitor *m, struct source *s);

/* Has timers run at the given time or before it. */
void loop_at(struct monitor *m, uint64_t when);

/* Frees memory after the events at hand. */
void loop_bury(struct monitor *m, struct grave *g);

/* Marks the scratch buffers as used. */
struct scratch *loop_scratch(struct monitor *m);

#endif
