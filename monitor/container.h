/*
 * A container, as the monitor sees it:
 *
 *   (create) -> CREATING -> RUNNING -> EXITED -> (forgotten)
 *                   \-> (gone: create failed)
 *
 * RUNNING begins when RUNTIME create has succeeded; whether the container's
 * process has been started is not the monitor's business.
 */
#ifndef GANTRY_CONTAINER_H
#define GANTRY_CONTAINER_H

#include "monitor.h"
#include "record.h"
#include "stream.h"
#include "wire.h"

struct creation;
struct call;

struct container {
	struct grave grave;
	struct container *next;
	char id[GM_ID_LENGTH + 1];
	uint8_t state; /* GM_STATE_... */
	uint8_t flags; /* GM_STDIN... */
	pid_t pid;
	struct creation *creation; /* while CREATING */
	struct exit_state exit;
	int exit_fd; /* the exit record, until it is written */
	char *oom_file;
	uint64_t oom_limit;  /* of its memory when it was created, in bytes; 0: none */
	uint64_t oom_before; /* kills around it when it was created that no container accounts for */
	struct log_sink log;
	bool log_failing;     /* it is known to daemons that the log can't be written */
	uint64_t log_look_at; /* while it fails: when it is looked at without a write */
	uint64_t log_sane_at; /* when it counts as working again; 0: it does, or fails */
	uint8_t *journal_fields; /* NULL: its output does not go to the journal */
	size_t journal_fields_len;
	struct stream out, err; /* with a terminal, out is its master and err is unused */
	struct source in;	/* the writing end of standard input; watched while it is full */
	bool in_watched;
	bool in_closing; /* close it once all input is delivered */
	struct attachment *attachments;
	unsigned holders; /* of them, those that hold its output up */
};

struct container *container_find(const struct monitor *m, const char *id);

/* A new container in the table, in state CREATING; NULL without memory. */
struct container *container_add(struct monitor *m, const char *id, uint8_t flags);

/* Takes a container out of the table and releases everything it holds. */
void container_remove(struct monitor *m, struct container *c);

/* The runtime has created it: pid is its process. */
void container_created(struct monitor *m, struct container *c, pid_t pid);

/* Looks at the log after a write: tells daemons when it begins to fail, and when
 * it has worked again for a while. */
void container_judge_log(struct monitor *m, struct container *c);

/* Adds the fields that describe a container to a message. */
void container_describe(struct wire_writer *w, const struct container *c);

/* Whether a container is being created or runs. */
bool containers_busy(const struct monitor *m);

/* Whether pid is the process of a running container, or the runtime of one. */
bool containers_know(const struct monitor *m, pid_t pid);

/* Collects every child that is dead. */
void containers_reap(struct monitor *m);

/* Does what is due: limits of time, unfinished lines, exit records. */
void containers_timers(struct monitor *m);

/* Drops what containers know of a client that is gone. */
void containers_forget_client(struct monitor *m, const struct client *client);

#endif
