/*
 * Kills for lack of memory.
 *
 * The kernel counts them per cgroup, of the cgroup that the killed process was
 * in, whichever limit was hit: memory.events of version 2, memory.oom_control of
 * version 1. It counts before it sends the signal, so that a count read after
 * the exit of a process includes that process. A container's cgroup is its own
 * and starts at 0.
 */
#ifndef GANTRY_OOM_H
#define GANTRY_OOM_H

#include <stdint.h>

/* The processes that were killed so far; 0 if path, which may be NULL, can't be read. */
uint64_t oom_kills(const char *path);

#endif
