/*
 * What the log writer must do, said in another way: drives it with operations
 * and compares the files with a model. Shared by the property test and the fuzzer.
 */
#ifndef GANTRY_LOGMODEL_H
#define GANTRY_LOGMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct logmodel;

/* A writer with an empty log in directory dir; with limit as its size limit. */
struct logmodel *logmodel_new(const char *dir, uint64_t limit);

/* Output arrives, as one read brings it. stream is 0 or 1; len at most 65536. */
void logmodel_feed(struct logmodel *m, int stream, const char *data, size_t len);
/* The stream is silent for a while: its unfinished line is written. */
void logmodel_idle(struct logmodel *m, int stream);
/* The log is renamed and reopened. */
void logmodel_rotate(struct logmodel *m);
/* From now on the log's files can't grow beyond so many bytes (0: they can). */
void logmodel_disk(struct logmodel *m, uint64_t room);

/* Both streams end. Checks everything, frees the model, empties dir; false and a
 * word on stderr if something is wrong. */
bool logmodel_finish(struct logmodel *m);

#endif
