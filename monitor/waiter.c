#include <sys/wait.h>

#include "create.h"
#include "sys.h"

int creation_add_waiter(struct creation *creation, const struct call *call)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct waiter){ .next = creation->waiters, .client = call->client, .id = call->id };
	creation->waiters = w;
	return 0;
}

void creation_join(struct monitor *m, struct container *c, const struct call *call)
{
	struct wire_writer w;

	if (c->creation && c->creation->given_up) {
		client_fail(m, call, ETIMEDOUT, "a killed runtime process has not ended yet");
	} else if (c->creation) {
		if (creation_add_waiter(c->creation, call) < 0)
			client_fail(m, call, ENOMEM, NULL);
	} else {
		w = client_reply(m, call->id);
		wire_put_u32(&w, GM_TAG_PID, (uint32_t)c->pid);
		client_send(m, call->client, &w);
	}
}

/* Takes one waiter off the list: sending to it may drop its client, which
 * removes other waiters. */
static bool next_waiter(struct creation *creation, struct call *call)
{
	struct waiter *w = creation->waiters;

	if (!w)
		return false;
	*call = (struct call){ .client = w->client, .id = w->id };
	creation->waiters = w->next;
	free(w);
	return true;
}

void creation_tell_pid(struct monitor *m, struct container *c)
{
	struct call call;

	while (next_waiter(c->creation, &call)) {
		struct wire_writer w = client_reply(m, call.id);

		wire_put_u32(&w, GM_TAG_PID, (uint32_t)c->pid);
		client_send(m, call.client, &w);
	}
}

void creation_tell_failure(struct monitor *m, struct container *c, int error, const char *words, const int *status)
{
	struct creation *creation = c->creation;
	struct call call;

	while (next_waiter(creation, &call)) {
		struct wire_writer w = client_reply(m, call.id);

		wire_put_u32(&w, GM_TAG_ERRNO, (uint32_t)error);
		wire_put_string(&w, GM_TAG_ERROR, words);
		if (status && WIFSIGNALED(*status))
			wire_put_u32(&w, GM_TAG_SIGNAL, (uint32_t)WTERMSIG(*status));
		else if (status)
			wire_put_u32(&w, GM_TAG_EXIT_STATUS, (uint32_t)WEXITSTATUS(*status));
		wire_put_bytes(&w, GM_TAG_OUTPUT, creation->output, creation->output_len);
		client_send(m, call.client, &w);
	}
}

void creation_forget_client(struct container *c, const struct client *client)
{
	struct waiter **at = &c->creation->waiters;

	while (*at) {
		struct waiter *w = *at;

		if (w->client != client) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}
