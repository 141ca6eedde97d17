/* The file under a log: whole records in, whole records on disk. */
#ifndef GANTRY_LOGFILE_H
#define GANTRY_LOGFILE_H

#include "log.h"

/* Where the last of some whole records starts. */
size_t logfile_last(const char *records, size_t len);

/*
 * Appends whole records and returns how many bytes are taken care of, always a
 * number of whole records; less than len means that the file can't take more
 * now. Records that a limited log has no room for count as taken care of.
 */
size_t logfile_write(struct log_sink *sink, const char *records, size_t len);

/* Whether the log's disk has room again, as far as can be told without writing;
 * false where it can't be told. */
bool logfile_has_room(const struct log_sink *sink);

#endif
