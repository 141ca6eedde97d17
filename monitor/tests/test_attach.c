/* How long attached clients hold a container up: by a clock of the test's own,
 * with a real socket, whose buffer fills and empties as the test reads. */
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../attach.h"
#include "../sys.h"
#include "check.h"

#define PART 32768

static struct scratch scratch;
static unsigned resumed, dropped;

/* What the monitor does around it. */
void loop_at(struct monitor *m, uint64_t when)
{
	if (m->deadline == 0 || when < m->deadline)
		m->deadline = when;
}

int loop_watch(struct monitor *m, struct source *s, uint32_t events)
{
	(void)m, (void)s, (void)events;
	return 0;
}

void loop_rewatch(struct monitor *m, struct source *s, uint32_t events)
{
	(void)m, (void)s, (void)events;
}

void loop_unwatch(struct monitor *m, struct source *s)
{
	(void)m, (void)s;
}

struct scratch *loop_scratch(struct monitor *m)
{
	(void)m;
	return &scratch;
}

void stream_resume(struct monitor *m, struct stream *s)
{
	(void)m, (void)s;
	resumed++;
}

void client_drop(struct monitor *m, struct client *c)
{
	(void)m, (void)c;
	dropped++;
}

void client_fail(struct monitor *m, const struct call *call, int error, const char *words)
{
	(void)m, (void)call;
	fprintf(stderr, "attach failed: %s %s\n", strerror(error), words ? words : "");
	failures++;
}

void client_succeed(struct monitor *m, const struct call *call)
{
	(void)m, (void)call;
}

bool stdin_take(struct monitor *m, struct attachment *a, const uint8_t *data, size_t len)
{
	(void)m, (void)a, (void)data, (void)len;
	return true;
}

void stdin_client_ended(struct monitor *m, struct attachment *a)
{
	(void)m, (void)a;
}

/* A running container with one attached client. */
struct scene {
	struct monitor m;
	struct container c;
	struct client client;
	int far; /* the client's end */
};

static void begin(struct scene *s)
{
	struct call call = { .client = &s->client };
	int pair[2];

	memset(s, 0, sizeof(*s));
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
	s->client.source.fd = pair[0];
	s->far = pair[1];
	s->m.now = 1000;
	s->c.state = GM_STATE_RUNNING;
	s->c.out.source.fd = s->c.err.source.fd = 0;
	attach_handle(&s->m, &call, &s->c, GM_ATTACH_STDOUT);
	CHECK(s->client.attachment != NULL);
}

static void end(struct scene *s)
{
	attach_end(&s->m, &s->client);
	CHECK(s->c.holders == 0);
	close(s->client.source.fd);
	close(s->far);
}

/* The client reads up to so many packets; how many bytes that brought. */
static size_t reads(struct scene *s, unsigned packets)
{
	static char buf[GM_MAX_MESSAGE];
	struct pollfd room = { .fd = s->client.source.fd, .events = POLLOUT };
	size_t total = 0;

	for (; packets > 0; packets--) {
		ssize_t n = recv(s->far, buf, sizeof(buf), MSG_DONTWAIT);

		if (n <= 0)
			break;
		total += (size_t)n;
	}
	if (poll(&room, 1, 0) == 1)
		attach_ready(&s->m, &s->client, EPOLLOUT);
	return total;
}

/* A millisecond in which the container writes all it can, up to parts. */
static void millisecond(struct scene *s, unsigned parts)
{
	static char data[PART];

	s->m.now++;
	attach_timers(&s->m, &s->c);
	for (; parts > 0 && !attach_holds(&s->c); parts--)
		attach_output(&s->m, &s->c, GM_STREAM_STDOUT, data, sizeof(data));
}

/* For how many of so many milliseconds the container was held up, while it
 * floods and the client reads packets a millisecond in steps of so many. */
static unsigned held(struct scene *s, unsigned time, unsigned packets, unsigned step)
{
	unsigned total = 0;

	for (unsigned i = 1; i <= time; i++) {
		millisecond(s, 64);
		total += attach_holds(&s->c);
		if (i % step == 0)
			reads(s, packets * step);
	}
	return total;
}

static void test_stuck(void)
{
	struct scene s;

	begin(&s);
	CHECK(held(&s, 10000, 0, 1) <= 50);
	CHECK(s.client.attachment->lost > 0);
	end(&s);
}

/* One that gets stuck after it has read well is waited for once. */
static void test_gets_stuck(void)
{
	struct scene s;

	begin(&s);
	CHECK(held(&s, 1000, 4, 1) > 0);
	CHECK(s.client.attachment->lost == 0);
	CHECK(held(&s, 10000, 0, 1) <= HOLD_MS);
	CHECK(s.client.attachment->lost > 0);
	end(&s);
}

/* Slow ones: 2 MiB a second, in packets and in bursts. */
static void test_slow(void)
{
	static const unsigned steps[] = { 16, 64, 512 };

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct scene s;
		unsigned total = 0;

		begin(&s);
		for (unsigned t = 0; t < 60000; t += steps[i]) {
			total += held(&s, steps[i], 0, 1);
			reads(&s, steps[i] / 16);
		}
		CHECK(total <= 50);
		end(&s);
	}
}

/* Fast ones miss nothing, in bursts too, and after they had nothing to read. */
static void test_fast(void)
{
	static const unsigned steps[] = { 1, 10, 100 };

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct scene s;

		begin(&s);
		reads(&s, 1);
		for (unsigned round = 0; round < 3; round++) {
			for (unsigned t = 0; t < 40; t++) {
				millisecond(&s, 1);
				reads(&s, 2);
			}
			held(&s, 3000, 3, steps[i]);
			CHECK(s.client.attachment->lost == 0);
			while (reads(&s, 1000) > 0)
				;
			s.m.now += 3600 * 1000;
		}
		end(&s);
	}
}

int main(void)
{
	test_stuck();
	test_gets_stuck();
	test_slow();
	test_fast();
	CHECK(dropped == 0 && resumed > 0);
	return report("attach");
}
