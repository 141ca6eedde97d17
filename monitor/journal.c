#include "journal.h"

#include <endian.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "stream.h"
#include "sys.h"
#include "text.h"

/* The most that a monitor which ends waits for the journal. */
#define CLOSE_MS 500
#define TAG_AT (LOG_PREFIX - 2)
#define NAME_AT 31

struct waiting {
	struct waiting *next;
	size_t len;
	uint8_t data[];
};

struct journal {
	struct grave grave;
	struct source source;
	bool watched; /* until there is room */
	char *path;
	struct waiting *first, **last;
	size_t queued;	      /* bytes that wait */
	uint64_t progress_at; /* when a message was taken last, or the first began to wait */
	uint64_t retry_at;    /* not tried before; 0: at once */
	bool given_up;
	uint64_t lost; /* messages since the last one that told so */
};

static void disconnect(struct monitor *m, struct journal *j)
{
	if (j->watched)
		loop_unwatch(m, &j->source);
	j->watched = false;
	close_fd(&j->source.fd);
	j->retry_at = m->now + JOURNAL_RETRY_MS;
}

static bool connected(struct monitor *m, struct journal *j)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (j->source.fd >= 0)
		return true;
	if (m->now < j->retry_at)
		return false;
	strcpy(address.sun_path, j->path);
	j->source.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (j->source.fd >= 0 && connect(j->source.fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return true;
	disconnect(m, j);
	return false;
}

/* Sends one message. False: not now. */
static bool send_parts(struct monitor *m, struct journal *j, struct iovec *parts, size_t count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };

	if (!connected(m, j))
		return false;
	if (sendmsg(j->source.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
		j->given_up = false;
		return true;
	}
	if (errno == EMSGSIZE) {
		j->lost++;
		return true;
	}
	if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM)
		disconnect(m, j); /* journald has been started anew */
	return false;
}

static void tell_lost(struct monitor *m, struct journal *j)
{
	TEXT(t, 256);
	struct iovec part;

	text_add(&t, "PRIORITY=4\nSYSLOG_IDENTIFIER=gantry-monitor\nMESSAGE=");
	text_number(&t, j->lost);
	text_add(&t, " lines of output could not be sent to the journal\n");
	part = (struct iovec){ .iov_base = t.buf, .iov_len = t.len };
	if (send_parts(m, j, &part, 1))
		j->lost = 0;
}

static void resume_containers(struct monitor *m)
{
	for (struct container *c = m->containers; c; c = c->next) {
		stream_resume(m, &c->out);
		stream_resume(m, &c->err);
	}
}

static void pop(struct journal *j)
{
	struct waiting *w = j->first;

	j->queued -= w->len;
	j->first = w->next;
	if (!j->first)
		j->last = &j->first;
	free(w);
}

/* Sees that the queue is looked at again. */
static void await(struct monitor *m, struct journal *j)
{
	loop_at(m, j->progress_at + JOURNAL_STALL_MS);
	if (j->source.fd < 0)
		loop_at(m, j->retry_at);
	else if (!j->watched)
		j->watched = loop_watch(m, &j->source, EPOLLOUT) == 0;
}

static void send_queue(struct monitor *m, struct journal *j)
{
	while (j->first) {
		struct iovec part = { .iov_base = j->first->data, .iov_len = j->first->len };

		if (!send_parts(m, j, &part, 1))
			break;
		j->progress_at = m->now;
		pop(j);
	}
	if (j->queued <= JOURNAL_FULL / 2)
		resume_containers(m);
	if (j->first) {
		await(m, j);
		return;
	}
	if (j->watched)
		loop_unwatch(m, &j->source);
	j->watched = false;
	if (j->lost > 0)
		tell_lost(m, j);
}

static void writable(struct monitor *m, struct source *s, uint32_t events)
{
	(void)events;
	send_queue(m, owner_of(s, struct journal, source));
}

static void give_up(struct monitor *m, struct journal *j)
{
	while (j->first) {
		j->lost++;
		pop(j);
	}
	j->given_up = true;
	disconnect(m, j);
	resume_containers(m);
}

static void enqueue(struct monitor *m, struct journal *j, const struct iovec *parts, size_t count)
{
	struct waiting *w = NULL;
	size_t len = 0;

	for (size_t i = 0; i < count; i++)
		len += parts[i].iov_len;
	if (j->queued + len <= JOURNAL_MAX)
		w = malloc(sizeof(*w) + len);
	if (!w) {
		j->lost++;
		return;
	}
	w->next = NULL;
	w->len = 0;
	for (size_t i = 0; i < count; w->len += parts[i++].iov_len)
		memcpy(w->data + w->len, parts[i].iov_base, parts[i].iov_len);
	if (!j->first)
		j->progress_at = m->now;
	*j->last = w;
	j->last = &w->next;
	j->queued += len;
	await(m, j);
}

static void send_record(struct monitor *m, const struct container *c, const char *record, size_t len)
{
	struct journal *j = m->journal;
	uint64_t size = htole64(len - LOG_PREFIX);
	TEXT(head, 96);
	struct iovec parts[] = {
		{ .iov_base = c->journal_fields, .iov_len = c->journal_fields_len },
		{ 0 },
		{ .iov_base = &size, .iov_len = sizeof(size) },
		{ .iov_base = (void *)(record + LOG_PREFIX), .iov_len = len - LOG_PREFIX },
		{ .iov_base = "\n", .iov_len = 1 },
	};
	const size_t count = sizeof(parts) / sizeof(parts[0]);

	text_add(&head, strncmp(record + NAME_AT, "stderr", 6) == 0 ? "PRIORITY=3\n" : "PRIORITY=6\n");
	if (record[TAG_AT] == 'P')
		text_add(&head, "CONTAINER_PARTIAL_MESSAGE=true\n");
	text_add(&head, "MESSAGE\n");
	parts[1] = (struct iovec){ .iov_base = head.buf, .iov_len = head.len };
	if (j->given_up && m->now < j->retry_at) {
		j->lost++;
		return;
	}
	if (!j->first && send_parts(m, j, parts, count)) {
		if (j->lost > 0)
			tell_lost(m, j);
		return;
	}
	if (j->given_up) {
		j->lost++;
		j->retry_at = m->now + JOURNAL_RETRY_MS;
		return;
	}
	enqueue(m, j, parts, count);
}

void journal_send(struct monitor *m, const struct container *c, const char *records, size_t len)
{
	while (len > 0) {
		size_t record = (size_t)((const char *)memchr(records, '\n', len) - records);

		send_record(m, c, records, record);
		records += record + 1;
		len -= record + 1;
	}
}

bool journal_full(const struct monitor *m)
{
	return m->journal && m->journal->queued > JOURNAL_FULL;
}

static int open_journal(struct monitor *m, const char *path)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j)
		j->path = strdup(path);
	if (!j || !j->path) {
		free(j);
		return -ENOMEM;
	}
	j->source.fd = -1;
	j->source.ready = writable;
	j->last = &j->first;
	m->journal = j;
	return 0;
}

int journal_use(struct monitor *m, struct container *c, const char *path, const uint8_t *fields, size_t len)
{
	int rc = 0;

	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return -ENAMETOOLONG;
	if (m->journal && strcmp(m->journal->path, path) != 0)
		journal_close(m);
	if (!m->journal)
		rc = open_journal(m, path);
	if (rc < 0)
		return rc;
	c->journal_fields = malloc(len + 1);
	if (!c->journal_fields)
		return -ENOMEM;
	if (len > 0)
		memcpy(c->journal_fields, fields, len);
	c->journal_fields_len = len;
	return 0;
}

void journal_timers(struct monitor *m)
{
	struct journal *j = m->journal;

	if (!j || !j->first)
		return;
	if (m->now >= j->progress_at + JOURNAL_STALL_MS)
		give_up(m, j);
	else
		send_queue(m, j);
}

void journal_close(struct monitor *m)
{
	struct journal *j = m->journal;
	struct pollfd room;

	if (!j)
		return;
	send_queue(m, j);
	room = (struct pollfd){ .fd = j->source.fd, .events = POLLOUT };
	while (j->first && j->source.fd >= 0 && poll(&room, 1, CLOSE_MS) > 0)
		send_queue(m, j);
	while (j->first)
		pop(j);
	disconnect(m, j);
	resume_containers(m);
	free(j->path);
	m->journal = NULL;
	loop_bury(m, &j->grave);
}
