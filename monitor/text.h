/*
 * Bounded text: what does not fit is cut, and the buffer always ends in NUL.
 * It stands in for printf, whose code and tables would be resident in every
 * monitor.
 */
#ifndef GANTRY_TEXT_H
#define GANTRY_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
	char *buf;
	size_t cap; /* with the NUL; at least 1 */
	size_t len; /* without it */
};

/* Declares a text called name in a buffer of its own. */
#define TEXT(name, size)          \
	char name##_buffer[size]; \
	struct text name = { .buf = name##_buffer, .cap = (size) }; \
	name.buf[0] = '\0'

void text_add(struct text *t, const char *words);
void text_bytes(struct text *t, const char *bytes, size_t len);
void text_number(struct text *t, uint64_t number);
/* Adds exactly digits decimal digits, with leading zeros. */
void text_digits(struct text *t, uint64_t number, unsigned digits);
/* Adds ": " and the words for an errno value. */
void text_errno(struct text *t, int error);

#endif
