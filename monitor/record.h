/*
 * The exit record: one line of JSON, padded with spaces to RECORD_SIZE bytes.
 * It is written in full when the container is created and overwritten in place
 * at its exit, so that a full disk can't stop an exit from being recorded.
 * "finished" is 0 until then. "sum" covers what stands before it: a reader that
 * comes in the middle of the write sees that it must read again.
 */
#ifndef GANTRY_RECORD_H
#define GANTRY_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#define RECORD_SIZE 256

struct exit_state {
	uint32_t code;	   /* as a shell says it: 128 + signal */
	uint32_t signal;   /* 0: it exited by itself */
	bool oom_killed;
	int64_t finished;  /* nanoseconds since 1970; 0: it has not ended */
	uint64_t log_lost; /* bytes of output that the log could not take */
};

/* Creates the record of a container that runs; a descriptor or a negative errno. */
int record_create(const char *path);

/* Fills it in. 0 or a negative errno. */
int record_write(int fd, const struct exit_state *e);

/* Turns the status of waitpid into e's code and signal. */
void record_status(struct exit_state *e, int status);

#endif
