#include "oom.h"

#include <fcntl.h>
#include <stdio.h>
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

/* The path of another file of the cgroup that file is in, or of the cgroup up levels
 * above it; NULL if there is none. To be freed. */
static char *beside(const char *file, int up, const char *name)
{
	AUTO_FREE char *dir = file ? strdup(file) : NULL;
	char *path = NULL;

	for (int i = 0; dir && i <= up; i++) {
		char *end = strrchr(dir, '/');

		if (!end)
			return NULL;
		*end = '\0';
	}
	if (!dir || asprintf(&path, "%s/%s", dir, name) < 0)
		return NULL;
	return path;
}

/* What was killed in the cgroup around the container's and those within it; 0 if
 * that can't be told. */
static uint64_t kills_around(const struct container *c)
{
	const char *name = c->oom_file ? strrchr(c->oom_file, '/') : NULL;
	AUTO_FREE char *path = name ? beside(c->oom_file, 1, name + 1) : NULL;

	return oom_kills(path);
}

/* The container's limit of memory in bytes; 0 if it has none. */
static uint64_t limit_of(const struct container *c)
{
	AUTO_FREE char *path = beside(c->oom_file, 0, "memory.max");
	AUTO_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	char buf[32];
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	if (n <= 0)
		return 0;
	buf[n] = '\0';
	return strtoull(buf, NULL, 10); /* "max" is none */
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
	c->oom_limit = limit_of(c);
}

/* Whether the cgroup of another container, whose exit is still to come, has gone. */
static bool others_are_gone(const struct monitor *m, const struct container *c)
{
	uint64_t kills;

	for (const struct container *o = m->containers; o; o = o->next)
		if (o != c && o->state == GM_STATE_RUNNING && o->oom_file && !read_kills(o->oom_file, &kills))
			return true;
	return false;
}

/* What a container that is accounted for now had killed is no longer what nobody
 * accounts for, which those that began meanwhile have noted. */
static void begin_again(const struct monitor *m)
{
	for (struct container *o = m->containers; o; o = o->next) {
		uint64_t now = unaccounted(m, o);

		if (now < o->oom_before)
			o->oom_before = now;
	}
}

bool oom_killed(struct monitor *m, struct container *c, uint64_t peak)
{
	uint64_t kills;
	bool told = read_kills(c->oom_file, &kills);

	if (!told) {
		uint64_t now = unaccounted(m, c);

		kills = now > c->oom_before ? now - c->oom_before : 0;
		if (kills > 0 && others_are_gone(m, c)) /* the rest may be theirs */
			kills = peak < c->oom_limit / 4 * 3 ? 0 : 1;
	}
	m->oom_accounted += kills;
	if (!told)
		begin_again(m);
	return kills > 0;
}
