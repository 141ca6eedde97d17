/*
 * A decoded request. Strings point into the message, which must outlive it.
 * Decoding checks form and bounds, never the file system.
 */
#ifndef GANTRY_REQUEST_H
#define GANTRY_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define MAX_ARGS 256
#define MAX_MOUNTS 64
#define MAX_LOWER 1024
#define MAX_OPTIONS 256
#define MAX_JOURNAL_FIELDS 8192

struct mount_request {
	const char *target;
	/* A mount of another process's mount namespace, if from_pid is not 0. */
	uint32_t from_pid;
	const char *source;
	/* Otherwise an overlay. upper and work are NULL in a read-only one. */
	const char *const *lower;
	size_t lower_count;
	const char *upper;
	const char *work;
	const char *const *option;
	size_t option_count;
	uint32_t ids_pid; /* of a process in the user namespace that maps the layers' ids; 0: none */
};

/* The fields of every request but GM_CREATE; 0 or NULL where absent. */
struct request {
	const char *container;
	uint32_t flags;
	uint32_t signal;
	uint32_t columns;
	uint32_t rows;
};

struct create_request {
	const char *container;
	const char *args[MAX_ARGS + 1]; /* ends in NULL */
	size_t arg_count;
	const char *pid_file;
	const char *exit_file;
	const char *log_path; /* NULL: output is dropped */
	const char *oom_file; /* NULL: none */
	const char *console;  /* set with GM_TTY only */
	const char *journal;  /* NULL: output does not go to a journal */
	const uint8_t *journal_fields;
	size_t journal_fields_len;
	uint64_t log_limit;   /* 0: none */
	uint32_t flags;
	uint32_t timeout_ms;
	uint32_t owner_uid; /* of the container's pipes */
	uint32_t owner_gid;
	struct mount_request mounts[MAX_MOUNTS];
	size_t mount_count;
	/* The mounts' lists point into these. */
	const char *lower[MAX_LOWER];
	size_t lower_count;
	const char *option[MAX_OPTIONS];
	size_t option_count;
};

/*
 * Both return 0 or a negative errno: EBADMSG for a malformed message, EINVAL
 * for a value or a combination that is not allowed, E2BIG for more than the
 * bounds above, ENOTSUP for an unknown critical field.
 */
int request_parse(struct wire_reader r, struct request *out);
int create_request_parse(struct wire_reader r, struct create_request *out);

#endif
