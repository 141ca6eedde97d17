/*
 * Output to journald too, in its native protocol: one datagram for each record
 * of the log. https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
 *
 * All containers of the pod share one connection. What journald does not take
 * at once waits in a queue; while that is long, the output of these containers
 * is not read, so that it arrives whole. A journald that takes nothing for
 * JOURNAL_STALL_MS is given up: the containers go on and only their log files
 * get their output, until it takes messages again. Then one of ours tells how
 * many are missing.
 */
#ifndef GANTRY_JOURNAL_H
#define GANTRY_JOURNAL_H

#include "container.h"

#define JOURNAL_STALL_MS 1000
#define JOURNAL_RETRY_MS 200
/* Containers wait while so many bytes do. */
#define JOURNAL_FULL (512 * 1024)
/* What comes all the same (a container has ended, and all it wrote is read) is
 * dropped beyond this. */
#define JOURNAL_MAX (16 * 1024 * 1024)

/* Has the container's output sent to the journal at path, with these fields. 0
 * or a negative errno. A journal that is not there is no error. */
int journal_use(struct monitor *m, struct container *c, const char *path, const uint8_t *fields, size_t len);

/* Sends records of a container's log. */
void journal_send(struct monitor *m, const struct container *c, const char *records, size_t len);

/* Whether a container that uses the journal must wait. */
bool journal_full(const struct monitor *m);

void journal_timers(struct monitor *m);

/* Sends what waits, as far as that takes no long time, and ends. */
void journal_close(struct monitor *m);

#endif
