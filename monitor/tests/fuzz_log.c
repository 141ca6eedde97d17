/* libFuzzer: any output, in any pieces, with rotations and full disks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "logmodel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char repeated[65536];

/* One operation of two bytes and what follows them; returns how many bytes it took. */
static size_t step(struct logmodel *m, const uint8_t *data, size_t len)
{
	int stream = data[0] & 1;
	size_t amount = data[1];

	switch (data[0] >> 1 & 7) {
	case 0:
		logmodel_idle(m, stream);
		return 2;
	case 1:
		logmodel_rotate(m);
		return 2;
	case 2:
		logmodel_disk(m, amount * 64);
		return 2;
	case 3: /* much of one byte: long lines, or many empty ones */
		memset(repeated, len > 2 ? data[2] : '\n', sizeof(repeated));
		logmodel_feed(m, stream, repeated, amount * 257);
		return 2;
	default:
		amount = amount < len - 2 ? amount : len - 2;
		logmodel_feed(m, stream, (const char *)data + 2, amount);
		return 2 + amount;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char dir[] = "/dev/shm/montest-fuzz-XXXXXX";
	struct logmodel *m;

	if (!mkdtemp(dir))
		abort();
	m = logmodel_new(dir, 0);
	while (len >= 2) {
		size_t taken = step(m, data, len);

		data += taken;
		len -= taken;
	}
	logmodel_disk(m, 0);
	if (!logmodel_finish(m))
		abort();
	rmdir(dir);
	return 0;
}
