/* libFuzzer: any bytes as a message. */
#include <string.h>

#include "../request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct create_request create;
static volatile size_t sink; /* keeps the reads from being optimised away */

/* Touches every string, so that a wrong one is noticed. */
static size_t lengths(const char *const *list, size_t count)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += strlen(list[i]);
	return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t total = 0;
	struct wire_header header;
	struct wire_reader r;
	struct request simple;

	if (!wire_open(&r, data, len, &header))
		return 0;
	if (request_parse(r, &simple) == 0 && simple.container)
		total += strlen(simple.container);
	if (create_request_parse(r, &create) < 0)
		return 0;
	total += lengths(create.args, create.arg_count);
	for (size_t i = 0; i < create.mount_count; i++) {
		total += strlen(create.mounts[i].target);
		total += lengths(create.mounts[i].lower, create.mounts[i].lower_count);
		total += lengths(create.mounts[i].option, create.mounts[i].option_count);
	}
	sink = total;
	return 0;
}
