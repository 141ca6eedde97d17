/* A test program is a main that calls functions with CHECKs and ends in report(). */
#ifndef GANTRY_CHECK_H
#define GANTRY_CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int failures;

#define CHECK(condition)                                                          \
	do {                                                                      \
		if (!(condition)) {                                               \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			failures++;                                               \
		}                                                                 \
	} while (0)

static inline int report(const char *name)
{
	printf("%s: %s\n", name, failures ? "FAILED" : "ok");
	return failures != 0;
}

#endif
