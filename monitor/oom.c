#include "oom.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

#define KEY "oom_kill "
#define KEY_LENGTH (sizeof(KEY) - 1)

uint64_t oom_kills(const char *path)
{
	AUTO_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	char buf[512];
	const char *at = buf;
	ssize_t n;

	if (fd < 0 || (n = read(fd, buf, sizeof(buf) - 1)) <= 0)
		return 0;
	buf[n] = '\0';
	while (at && strncmp(at, KEY, KEY_LENGTH) != 0) {
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	return at ? strtoull(at + KEY_LENGTH, NULL, 10) : 0;
}
