/* Small helpers around descriptors and memory that every file uses. */
#ifndef GANTRY_SYS_H
#define GANTRY_SYS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define owner_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* Closes *fd if it is open and sets it to -1; keeps errno. */
static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

static inline void free_memory(void *pointer)
{
	free(*(void **)pointer);
}

/* A variable so marked is closed or freed when it goes out of scope. */
#define AUTO_CLOSE __attribute__((cleanup(close_fd)))
#define AUTO_FREE __attribute__((cleanup(free_memory)))

/* Moves a descriptor out of an AUTO_CLOSE variable. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

#endif
