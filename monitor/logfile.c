#include "logfile.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys.h"

/* The name under which a log over its limit is started again. */
#define SUFFIX ".new"
/* A disk has room when it has some for many records. */
#define LOG_ROOM 65536

/* O_NONBLOCK: a FIFO in the log's place must not stop the monitor. */
#define OPEN_FLAGS (O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)

/* Opens a path that leads over no link: whoever can write to a directory on the
 * way could have put one there since the daemon looked. */
static int open_straight(const char *path, int flags)
{
	const struct open_how how = { .flags = (uint64_t)flags, .mode = 0640, .resolve = RESOLVE_NO_SYMLINKS };
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	if (fd < 0 && errno == ENOSYS) /* before Linux 5.6 */
		return open(path, flags, 0640);
	return fd;
}

/* Opens a log file and finds its size. */
static int open_file(const char *path, int flags, uint64_t *size)
{
	AUTO_CLOSE int fd = open_straight(path, OPEN_FLAGS | flags);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*size = (uint64_t)st.st_size;
	return take_fd(&fd);
}

static void use_file(struct log_sink *sink, int fd, uint64_t size)
{
	close_fd(&sink->fd);
	sink->fd = fd;
	sink->size = size;
	sink->retry_at = 0;
	sink->ragged = false;
}

int log_open(struct log_sink *sink, const char *path)
{
	AUTO_FREE char *copy = malloc(strlen(path) + sizeof(SUFFIX));
	uint64_t size;
	int fd;

	if (!copy)
		return -ENOMEM;
	strcpy(copy, path);
	fd = open_file(path, 0, &size);
	if (fd < 0)
		return fd;
	free(sink->path);
	sink->path = copy;
	copy = NULL;
	use_file(sink, fd, size);
	return 0;
}

int log_reopen(struct log_sink *sink)
{
	uint64_t size;
	int fd = open_file(sink->path, 0, &size);

	if (fd < 0)
		return fd;
	use_file(sink, fd, size);
	return 0;
}

void log_close(struct log_sink *sink)
{
	close_fd(&sink->fd);
	free(sink->path);
	sink->path = NULL;
}

size_t logfile_last(const char *records, size_t len)
{
	const char *newline = len > 1 ? memrchr(records, '\n', len - 1) : NULL;

	return newline ? (size_t)(newline + 1 - records) : 0;
}

/* Puts an empty file in the log's place. Readers of the old one keep it. */
static int start_again(struct log_sink *sink)
{
	size_t len = strlen(sink->path);
	AUTO_FREE char *log = strdup(sink->path);
	uint64_t size;
	int fd, rc;

	if (!log)
		return -ENOMEM;
	strcpy(sink->path + len, SUFFIX);
	unlink(sink->path);
	fd = rc = open_file(sink->path, O_EXCL, &size);
	if (fd >= 0 && rename(sink->path, log) < 0) {
		rc = -errno;
		close_fd(&fd);
		unlink(sink->path);
	}
	sink->path[len] = '\0';
	if (fd < 0)
		return rc;
	use_file(sink, fd, 0);
	return 0;
}

/* Makes room in a limited log and finds how many bytes at the front to skip. */
static int make_room(struct log_sink *sink, const char *records, size_t len, size_t *skip)
{
	uint64_t limit = sink->limit < LOG_MIN_LIMIT ? LOG_MIN_LIMIT : sink->limit;

	*skip = 0;
	if (sink->limit == 0 || sink->size + len <= limit)
		return 0;
	while (len - *skip > limit)
		*skip += (size_t)((const char *)memchr(records + *skip, '\n', len - *skip) + 1 - (records + *skip));
	return sink->size > 0 ? start_again(sink) : 0;
}

static size_t write_all(struct log_sink *sink, const char *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(sink->fd, data + done, len - done);

		if (n <= 0) {
			sink->error = n < 0 ? errno : ENOSPC;
			break;
		}
		done += (size_t)n;
	}
	return done;
}

/* Cuts the last excess bytes off the file. The file's own size counts: someone
 * else may have truncated it since. */
static void take_back(struct log_sink *sink, size_t excess)
{
	struct stat st;

	if (excess == 0)
		return;
	if (fstat(sink->fd, &st) < 0 || (size_t)st.st_size < excess ||
	    ftruncate(sink->fd, st.st_size - (off_t)excess) < 0)
		sink->ragged = true;
}

bool logfile_has_room(const struct log_sink *sink)
{
	struct stat st;

	if (fstat(sink->fd, &st) < 0 || fallocate(sink->fd, FALLOC_FL_KEEP_SIZE, st.st_size, LOG_ROOM) < 0)
		return false;
	/* Gives back what lies beyond the end. */
	return ftruncate(sink->fd, st.st_size) == 0;
}

size_t logfile_write(struct log_sink *sink, const char *records, size_t len)
{
	const char *newline;
	size_t skip, done, whole;
	int rc = make_room(sink, records, len, &skip);

	if (rc < 0) {
		sink->error = -rc;
		return 0;
	}
	if (sink->ragged && write_all(sink, "\n", 1) == 0)
		return 0;
	sink->ragged = false;
	records += skip;
	len -= skip;
	done = write_all(sink, records, len);
	whole = done;
	if (done < len) {
		newline = memrchr(records, '\n', done);
		whole = newline ? (size_t)(newline + 1 - records) : 0;
		take_back(sink, done - whole);
	}
	sink->size += whole;
	return whole > 0 ? skip + whole : 0;
}
