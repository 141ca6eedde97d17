/*
 * The CRI log writer. A record is
 *
 *   <RFC 3339 time, 9 digits, UTC> stdout|stderr F|P <bytes>\n
 *
 * P is a part of a line whose rest follows in later records of the same
 * stream, or the last line of one that ends without a newline; F is a whole
 * line or the last part of one. A record holds at most
 * LOG_CHUNK bytes of the line. Output bytes are written as they are.
 *
 * A disk that is full (or fails) neither blocks nor ends the container: the
 * record that did not fit is taken back whole, output is dropped and counted
 * in log_sink.lost, and writing is tried again every LOG_RETRY_MS. A line whose
 * rest was dropped is closed with an empty F record when writing works again.
 */
#ifndef GANTRY_LOG_H
#define GANTRY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define LOG_CHUNK 16384
#define LOG_PREFIX 40
/* Records are collected in a buffer of this size before they are written. */
#define LOG_BUFFER (256 * 1024)
#define LOG_RETRY_MS 200
/* The smallest limit of a log's size that is obeyed: one record must fit. */
#define LOG_MIN_LIMIT 32768

/* One log file. */
struct log_sink {
	int fd;		   /* -1: no log is wanted, records only go to the tap */
	char *path;	   /* owned; with room for a suffix */
	uint64_t size;	   /* bytes in the file */
	uint64_t limit;	   /* most bytes in the file, 0: any number */
	uint64_t lost;	   /* bytes of output that were dropped */
	uint64_t retry_at; /* milliseconds: output is dropped until then; 0: the last write worked */
	int error;	   /* why the last write failed: a positive errno */
	bool ragged;	   /* a part of a record could not be taken back */
};

/* One stream of output, stdout or stderr. */
struct log_stream {
	const char *name; /* 6 letters */
	bool open;	  /* the line's last record was P */
	bool open_on_disk; /* the same, of what reached the file */
	bool torn;	  /* the rest of a line on disk was dropped */
};

/* The time of a batch of records. */
struct log_time {
	time_t second;	   /* the one that date is for */
	char date[20];	   /* YYYY-MM-DDTHH:MM:SS */
};

/* What is being written for one stream; lives for one call of its user. */
struct log_batch {
	struct log_sink *sink;
	struct log_stream *stream;
	char *buf; /* LOG_BUFFER bytes */
	size_t len;
	size_t last; /* where the last record in buf starts */
	uint64_t now_ms;
	unsigned closers; /* records at the front that the container did not write */
	bool force;	  /* write even while a failing disk is left alone */
	/* Sees the records before they are written, but for those that the
	 * container did not write. NULL: nobody. Set it after log_begin. */
	void (*tap)(const struct log_batch *b, const char *records, size_t len);
	char prefix[LOG_PREFIX];
};

/*
 * Opens (or creates) the log at path, which must be a regular file or nothing.
 * 0 or a negative errno; on failure the sink is as it was. Also reopens: what
 * the sink had open is closed.
 */
int log_open(struct log_sink *sink, const char *path);
int log_reopen(struct log_sink *sink);
void log_close(struct log_sink *sink);

/* Starts a batch whose sink, stream, buf and now_ms (a monotonic clock) are set.
 * now is the wall clock. */
void log_begin(struct log_batch *b, struct log_time *clock, const struct timespec *now);

/*
 * Adds all complete lines and full chunks at the front of data. Returns how
 * many bytes were taken: fewer than LOG_CHUNK are left, and none of them is a
 * newline. The caller hands them in again, in front of what follows them.
 */
size_t log_lines(struct log_batch *b, const char *data, size_t len);

/* Adds the rest of a line, before its end is known. */
void log_partial(struct log_batch *b, const char *data, size_t len);

/* Adds the rest of the stream (len may be 0). A last line without a newline
 * stays open: readers add a newline to an F record only. */
void log_end(struct log_batch *b, const char *data, size_t len);

/* Writes what was added. */
void log_flush(struct log_batch *b);

#endif
