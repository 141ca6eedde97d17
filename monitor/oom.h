/*
 * Kills for lack of memory.
 *
 * The kernel counts them per cgroup, of the cgroup that the killed process was
 * in, whichever limit was hit: memory.events of version 2, memory.oom_control of
 * version 1. It counts before it sends the signal, so that a count read after
 * the exit of a process includes that process. A container's cgroup is its own
 * and starts at 0.
 *
 * systemd removes a scope's cgroup as soon as its last process has exited, and may
 * be faster than the monitor. With version 2 the pod's cgroup, which stays, counts
 * what was killed in those within it, too. What it has counted since the container
 * began, and what no other container of the pod accounts for, was then the
 * container's. Where the cgroups of several containers have gone at once, it is the
 * one of them whose process had most of the memory that it was allowed. Not told
 * apart are those of other pods in the same cgroup, if somebody has them share one.
 */
#ifndef GANTRY_OOM_H
#define GANTRY_OOM_H

#include <stdbool.h>
#include <stdint.h>

struct monitor;
struct container;

/* The processes that were killed so far; 0 if path, which may be NULL, can't be read. */
uint64_t oom_kills(const char *path);

/* The container has a cgroup now. */
void oom_begin(const struct monitor *m, struct container *c);

/* Whether a process of the container was killed; to be asked once, when its first
 * one has exited, of which peak is the most memory that it had, in bytes. */
bool oom_killed(struct monitor *m, struct container *c, uint64_t peak);

#endif
