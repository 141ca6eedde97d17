#include <malloc.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>

#include "client.h"
#include "container.h"
#include "journal.h"
#include "monitor.h"
#include "sys.h"

#define EVENTS 16
/* Scratch pages are given back after so long. */
#define SCRATCH_MS 2000
/* A monitor without clients and containers ends after so long: its daemon
 * died between launching and using it. */
#define LONELY_MS 60000

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int loop_watch(struct monitor *m, struct source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	return epoll_ctl(m->epoll, EPOLL_CTL_ADD, s->fd, &e) < 0 ? -errno : 0;
}

void loop_rewatch(struct monitor *m, struct source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	epoll_ctl(m->epoll, EPOLL_CTL_MOD, s->fd, &e);
}

void loop_unwatch(struct monitor *m, struct source *s)
{
	epoll_ctl(m->epoll, EPOLL_CTL_DEL, s->fd, NULL);
}

void loop_close(struct monitor *m, struct source *s)
{
	if (s->fd < 0)
		return;
	/* A child between fork and exec holds a copy, so closing alone would
	 * leave it in the epoll set. */
	loop_unwatch(m, s);
	close_fd(&s->fd);
}

void loop_at(struct monitor *m, uint64_t when)
{
	if (m->deadline == 0 || when < m->deadline)
		m->deadline = when;
}

void loop_bury(struct monitor *m, struct grave *g)
{
	g->next = m->graves;
	m->graves = g;
}

struct scratch *loop_scratch(struct monitor *m)
{
	if (m->scratch_due == 0) {
		m->scratch_due = m->now + SCRATCH_MS;
		loop_at(m, m->scratch_due);
	}
	return m->scratch;
}

int loop_open(struct monitor *m)
{
	sigset_t wanted;

	m->now = clock_ms();
	m->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (m->epoll < 0)
		return -errno;
	m->scratch = mmap(NULL, sizeof(*m->scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->scratch == MAP_FAILED)
		return -errno;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGCHLD);
	sigaddset(&wanted, SIGTERM);
	m->signals.fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
	if (m->signals.fd < 0)
		return -errno;
	return loop_watch(m, &m->signals, EPOLLIN);
}

static void check_lonely(struct monitor *m)
{
	if (m->clients || m->containers) {
		m->lonely_since = 0;
		return;
	}
	if (m->lonely_since == 0)
		m->lonely_since = m->now;
	if (m->now >= m->lonely_since + LONELY_MS)
		m->done = true;
	else
		loop_at(m, m->lonely_since + LONELY_MS);
}

static void run_timers(struct monitor *m)
{
	m->deadline = 0;
	containers_timers(m);
	clients_timers(m);
	journal_timers(m);
	if (m->scratch_due == 0)
		return;
	if (m->now >= m->scratch_due) {
		madvise(m->scratch, sizeof(*m->scratch), MADV_DONTNEED);
		malloc_trim(0);
		m->scratch_due = 0;
	} else {
		loop_at(m, m->scratch_due);
	}
}

static void free_graves(struct monitor *m)
{
	while (m->graves) {
		struct grave *g = m->graves;

		m->graves = g->next;
		free(g);
	}
}

static int timeout(const struct monitor *m)
{
	uint64_t now = clock_ms();

	if (m->deadline == 0)
		return -1;
	return m->deadline > now ? (int)(m->deadline - now) : 0;
}

void loop_run(struct monitor *m)
{
	struct epoll_event events[EVENTS];

	while (!m->done) {
		int count;

		check_lonely(m);
		count = epoll_wait(m->epoll, events, EVENTS, timeout(m));
		m->now = clock_ms();
		for (int i = 0; i < count; i++) {
			struct source *s = events[i].data.ptr;

			if (s->fd >= 0)
				s->ready(m, s, events[i].events);
		}
		if (m->deadline != 0 && m->now >= m->deadline)
			run_timers(m);
		free_graves(m);
	}
}

void loop_end(struct monitor *m)
{
	free_graves(m);
	munmap(m->scratch, sizeof(*m->scratch));
}
