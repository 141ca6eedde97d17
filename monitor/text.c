#include "text.h"

#include <string.h>

#include "sys.h"

void text_bytes(struct text *t, const char *bytes, size_t len)
{
	len = smaller(len, t->cap - 1 - t->len);
	memcpy(t->buf + t->len, bytes, len);
	t->len += len;
	t->buf[t->len] = '\0';
}

void text_add(struct text *t, const char *words)
{
	text_bytes(t, words, strlen(words));
}

void text_digits(struct text *t, uint64_t number, unsigned digits)
{
	char buf[20];

	for (unsigned i = digits; i-- > 0; number /= 10)
		buf[i] = (char)('0' + number % 10);
	text_bytes(t, buf, digits);
}

void text_number(struct text *t, uint64_t number)
{
	unsigned digits = 1;

	for (uint64_t rest = number; rest >= 10; rest /= 10)
		digits++;
	text_digits(t, number, digits);
}

void text_errno(struct text *t, int error)
{
	const char *words = strerrordesc_np(error);

	text_add(t, ": ");
	if (words) {
		text_add(t, words);
		return;
	}
	text_add(t, "error ");
	text_number(t, (uint64_t)error);
}
