#include "attach.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

bool attach_holds(const struct container *c)
{
	return c->holders > 0;
}

void hold_release(struct monitor *m, struct attachment *a)
{
	struct container *c = a->container;

	if (!a->holding)
		return;
	a->holding = false;
	c->holders--;
	stream_resume(m, &c->out);
	stream_resume(m, &c->err);
}

static int64_t within(int64_t n, int64_t bound)
{
	return n > bound ? bound : n < -bound ? -bound : n;
}

void hold_judge(struct monitor *m, struct attachment *a)
{
	uint64_t spent = a->behind ? m->now - a->judged : 0, earned = 0;
	int queued = 0;

	/* What the kernel has queued counts some bytes more than were sent. */
	if (ioctl(a->client->source.fd, SIOCOUTQ, &queued) == 0 && a->sent > a->read + (uint64_t)queued) {
		earned = (a->sent - a->read - (uint64_t)queued) / HOLD_RATE;
		a->read += earned * HOLD_RATE;
	}
	a->credit = within(a->credit + (int64_t)earned - (int64_t)spent, HOLD_MS);
	a->behind = queued > 0;
	a->judged = m->now;
}

bool hold_begin(struct monitor *m, struct attachment *a)
{
	hold_judge(m, a);
	if (a->credit <= 0)
		return false;
	a->holding = true;
	a->container->holders++;
	loop_at(m, m->now + (uint64_t)a->credit);
	return true;
}

bool hold_goes_on(struct monitor *m, struct attachment *a)
{
	hold_judge(m, a);
	if (a->credit <= 0)
		return false;
	loop_at(m, m->now + (uint64_t)a->credit);
	return true;
}
