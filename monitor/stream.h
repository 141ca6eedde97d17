/* One stream of a container's output, from its pipe or terminal to the log and to attached clients. */
#ifndef GANTRY_STREAM_H
#define GANTRY_STREAM_H

#include "monitor.h"

struct stream {
	struct source source;
	struct container *container;
	struct log_stream log;
	uint8_t kind;	    /* GM_STREAM_STDOUT or GM_STREAM_STDERR */
	bool grown;	    /* its pipe has been made larger */
	bool paused;	    /* not watched until the journal, or an attached client, has room */
	bool hung_up;	    /* a terminal that nobody holds open at the moment */
	char *carry;	    /* the unfinished line; NULL if empty */
	size_t carry_len;
	uint64_t carry_due; /* when it is written as a P record */
};

/* Starts reading from s->source.fd, which is set. 0 or a negative errno. */
int stream_start(struct monitor *m, struct stream *s);

/* Goes on where it was paused, if it was. */
void stream_resume(struct monitor *m, struct stream *s);

/* Reads what the stream holds now, but not what is added for ever. */
void stream_drain(struct monitor *m, struct stream *s);

/* Closes the stream, its last line too. */
void stream_end(struct monitor *m, struct stream *s);

void stream_timers(struct monitor *m, struct stream *s);

#endif
