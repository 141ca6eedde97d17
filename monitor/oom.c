#include "oom.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "container.h"
#include "sys.h"

#define KEY "oom_kill "
#define KEY_LENGTH (sizeof(KEY) - 1)

/* False, and 0 kills, if the file can't be read or tells nothing. */
static bool read_kills(const char *path, uint64_t *kills)
{
	AUTO_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	char buf[512];
	const char *at = buf;
	ssize_t n;

	*kills = 0;
	if (fd < 0 || (n = read(fd, buf, sizeof(buf) - 1)) <= 0)
		return false;
	buf[n] = '\0';
	while (at && strncmp(at, KEY, KEY_LENGTH) != 0) {
		at = strchr(at, '\n');
		at = at ? at + 1 : NULL;
	}
	if (at)
		*kills = strtoull(at + KEY_LENGTH, NULL, 10);
	return at;
}

uint64_t oom_kills(const char *path)
{
	uint64_t kills;

	read_kills(path, &kills);
	return kills;
}

/* What was killed in the cgroup around the container's and those within it; 0 if
 * that can't be told. */
static uint64_t kills_around(const struct container *c)
{
	AUTO_FREE char *path = c->oom_file ? strdup(c->oom_file) : NULL;
	char *name = path ? strrchr(path, '/') : NULL;
	char *cgroup;

	if (!name)
		return 0;
	*name = '\0';
	cgroup = strrchr(path, '/');
	if (!cgroup)
		return 0;
	*name = '/';
	memmove(cgroup, name, strlen(name) + 1);
	return oom_kills(path);
}

/* What was killed around the container, without what others account for. */
static uint64_t unaccounted(const struct monitor *m, const struct container *c)
{
	uint64_t all = kills_around(c);
	uint64_t others = m->oom_accounted;

	for (const struct container *o = m->containers; o; o = o->next)
		if (o != c && o->state != GM_STATE_EXITED)
			others += oom_kills(o->oom_file);
	return all > others ? all - others : 0;
}

void oom_begin(const struct monitor *m, struct container *c)
{
	c->oom_before = unaccounted(m, c);
}

bool oom_killed(struct monitor *m, const struct container *c)
{
	uint64_t kills;

	if (!read_kills(c->oom_file, &kills)) {
		uint64_t now = unaccounted(m, c);

		kills = now > c->oom_before ? now - c->oom_before : 0;
	}
	m->oom_accounted += kills;
	return kills > 0;
}
