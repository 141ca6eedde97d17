/* Messages: what is written is read again, and nothing malformed is accepted. */
#include <errno.h>
#include <string.h>

#include "../protocol.h"
#include "../request.h"
#include "check.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static uint8_t buffer[GM_MAX_MESSAGE];
static struct create_request create;

static struct wire_writer start(uint16_t type)
{
	struct wire_writer w = { .buf = buffer, .cap = sizeof(buffer) };

	wire_begin(&w, type, 7);
	return w;
}

static int parse_create(const struct wire_writer *w)
{
	struct wire_header header;
	struct wire_reader r;

	CHECK(!w->full);
	CHECK(wire_open(&r, w->buf, w->len, &header));
	CHECK(header.version == GM_VERSION && header.id == 7);
	return create_request_parse(r, &create);
}

/* A create request with everything it needs but mounts. */
static struct wire_writer minimal(void)
{
	struct wire_writer w = start(GM_CREATE);

	wire_put_string(&w, GM_TAG_CONTAINER, ID);
	wire_put_string(&w, GM_TAG_ARG, "/bin/runtime");
	wire_put_string(&w, GM_TAG_ARG, "");
	wire_put_string(&w, GM_TAG_PID_FILE, "/pid");
	wire_put_string(&w, GM_TAG_EXIT_FILE, "/exit");
	wire_put_u32(&w, GM_TAG_TIMEOUT_MS, 1000);
	return w;
}

static void test_create(void)
{
	struct wire_writer w = minimal();
	size_t mark = wire_enter(&w, GM_TAG_MOUNT);

	wire_put_string(&w, GM_TAG_TARGET, "/t1");
	wire_put_string(&w, GM_TAG_LOWER, "/l1");
	wire_put_string(&w, GM_TAG_LOWER, "/l2");
	wire_put_string(&w, GM_TAG_OPTION, "volatile");
	wire_leave(&w, mark);
	mark = wire_enter(&w, GM_TAG_MOUNT);
	wire_put_string(&w, GM_TAG_TARGET, "/t2");
	wire_put_u32(&w, GM_TAG_FROM_PID, 42);
	wire_put_string(&w, GM_TAG_SOURCE, "/dev/shm");
	wire_leave(&w, mark);
	mark = wire_enter(&w, GM_TAG_MOUNT);
	wire_put_string(&w, GM_TAG_TARGET, "/t3");
	wire_put_string(&w, GM_TAG_LOWER, "/l3");
	wire_put_string(&w, GM_TAG_UPPER, "/u");
	wire_put_string(&w, GM_TAG_WORK, "/w");
	wire_put_u32(&w, GM_TAG_IDS_PID, 43);
	wire_leave(&w, mark);
	wire_put_u32(&w, GM_TAG_OWNER_UID, 300000);
	wire_put_u32(&w, GM_TAG_OWNER_GID, 300001);
	wire_put_u64(&w, 999, 1); /* unknown, skipped */
	CHECK(parse_create(&w) == 0);
	CHECK(create.arg_count == 2 && create.args[2] == NULL && strcmp(create.args[1], "") == 0);
	CHECK(create.mount_count == 3);
	CHECK(create.mounts[0].lower_count == 2 && strcmp(create.mounts[0].lower[1], "/l2") == 0);
	CHECK(create.mounts[0].option_count == 1 && !create.mounts[0].upper);
	CHECK(create.mounts[1].from_pid == 42 && strcmp(create.mounts[1].source, "/dev/shm") == 0);
	CHECK(create.mounts[2].lower_count == 1 && strcmp(create.mounts[2].lower[0], "/l3") == 0);
	CHECK(create.mounts[2].ids_pid == 43 && create.mounts[0].ids_pid == 0);
	CHECK(create.owner_uid == 300000 && create.owner_gid == 300001);
	CHECK(create.log_path == NULL && create.timeout_ms == 1000);
}

static void test_refusals(void)
{
	struct wire_writer w = start(GM_CREATE);
	size_t mark;

	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	wire_put_string(&w, GM_TAG_CONTAINER, "../../etc");
	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	wire_put_string(&w, GM_TAG_LOG_PATH, "relative");
	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	wire_put_bytes(&w, GM_TAG_LOG_PATH, "/a\0b", 5);
	CHECK(parse_create(&w) == -EBADMSG);
	w = minimal();
	wire_put_bytes(&w, GM_TAG_LOG_PATH, "/unterminated", 5);
	CHECK(parse_create(&w) == -EBADMSG);
	w = minimal();
	wire_put_u32(&w, GM_TAG_FLAGS, GM_TTY); /* without a console socket */
	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	wire_put_u32(&w, GM_TAG_CRITICAL | 999, 1);
	CHECK(parse_create(&w) == -ENOTSUP);
	w = minimal();
	mark = wire_enter(&w, GM_TAG_MOUNT);
	wire_put_string(&w, GM_TAG_TARGET, "/t");
	wire_leave(&w, mark); /* neither kind */
	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	mark = wire_enter(&w, GM_TAG_MOUNT);
	wire_put_string(&w, GM_TAG_TARGET, "/t");
	wire_put_u32(&w, GM_TAG_FROM_PID, 42);
	wire_put_string(&w, GM_TAG_SOURCE, "/s");
	wire_put_u32(&w, GM_TAG_IDS_PID, 43);
	wire_leave(&w, mark); /* only overlays are mapped */
	CHECK(parse_create(&w) == -EINVAL);
	w = minimal();
	for (int i = 0; i < MAX_ARGS; i++)
		wire_put_string(&w, GM_TAG_ARG, "x");
	CHECK(parse_create(&w) == -E2BIG);
}

/* Every truncation of a good message is refused or means less; none is read past its end. */
static void test_truncation(void)
{
	struct wire_writer w = minimal();
	struct wire_header header;
	struct wire_reader r;

	for (size_t len = 0; len < w.len; len++) {
		uint8_t *copy = malloc(len ? len : 1); /* exactly as long, so that ASan sees an overrun */

		memcpy(copy, w.buf, len);
		if (wire_open(&r, copy, len, &header))
			CHECK(create_request_parse(r, &create) < 0);
		else
			CHECK(len < GM_HEADER_SIZE);
		free(copy);
	}
}

static void test_writer_bounds(void)
{
	uint8_t small[32];
	struct wire_writer w = { .buf = small, .cap = sizeof(small) };
	size_t mark;

	wire_begin(&w, GM_REPLY, 1);
	wire_put_u64(&w, GM_TAG_FINISHED, 1);
	CHECK(!w.full && w.len == 28);
	wire_put_u32(&w, GM_TAG_PID, 1);
	CHECK(w.full);
	mark = wire_enter(&w, GM_TAG_ENTRY);
	wire_leave(&w, mark);
	CHECK(w.full && w.len <= sizeof(small));
}

int main(void)
{
	test_create();
	test_refusals();
	test_truncation();
	test_writer_bounds();
	return report("wire");
}
