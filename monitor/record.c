#include "record.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "sys.h"
#include "text.h"

static uint32_t checksum(const char *bytes, size_t len)
{
	uint32_t sum = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ (uint8_t)bytes[i]) * 16777619u;
	return sum;
}

static void format(struct text *t, const struct exit_state *e)
{
	uint32_t sum;

	text_add(t, "{\"version\":1,\"finished\":");
	text_number(t, (uint64_t)e->finished);
	text_add(t, ",\"exit_code\":");
	text_number(t, e->code);
	text_add(t, ",\"signal\":");
	text_number(t, e->signal);
	text_add(t, ",\"oom_killed\":");
	text_add(t, e->oom_killed ? "true" : "false");
	text_add(t, ",\"log_lost\":");
	text_number(t, e->log_lost);
	sum = checksum(t->buf, t->len);
	text_add(t, ",\"sum\":");
	text_number(t, sum);
	text_add(t, "}");
}

int record_write(int fd, const struct exit_state *e)
{
	TEXT(t, RECORD_SIZE + 1);
	ssize_t n;

	format(&t, e);
	memset(t.buf + t.len, ' ', RECORD_SIZE - t.len);
	t.buf[RECORD_SIZE - 1] = '\n';
	n = pwrite(fd, t.buf, RECORD_SIZE, 0);
	if (n < 0)
		return -errno;
	return n == RECORD_SIZE ? 0 : -ENOSPC;
}

int record_create(const char *path)
{
	const struct exit_state running = { 0 };
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return -errno;
	rc = record_write(fd, &running);
	if (rc < 0) {
		unlink(path);
		return rc;
	}
	return take_fd(&fd);
}

void record_status(struct exit_state *e, int status)
{
	e->signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
	e->code = e->signal ? 128 + e->signal : (uint32_t)WEXITSTATUS(status);
}
