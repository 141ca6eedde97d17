#include "request.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "protocol.h"

static bool valid_id(const char *id)
{
	return id && strlen(id) == GM_ID_LENGTH && strspn(id, "0123456789abcdef") == GM_ID_LENGTH;
}

static int request_field(struct request *out, const struct wire_field *f)
{
	switch (f->tag) {
	case GM_TAG_CONTAINER:
		return wire_string(f, &out->container);
	case GM_TAG_FLAGS:
		return wire_u32(f, &out->flags);
	case GM_TAG_SIGNAL:
		return wire_u32(f, &out->signal);
	case GM_TAG_COLUMNS:
		return wire_u32(f, &out->columns);
	case GM_TAG_ROWS:
		return wire_u32(f, &out->rows);
	default:
		return wire_unknown(f);
	}
}

int request_parse(struct wire_reader r, struct request *out)
{
	struct wire_field f;
	int rc;

	memset(out, 0, sizeof(*out));
	while ((rc = wire_next(&r, &f)) > 0) {
		rc = request_field(out, &f);
		if (rc < 0)
			return rc;
	}
	if (rc == 0 && out->container && !valid_id(out->container))
		return -EINVAL;
	return rc;
}

/* Adds a string to a list with room for max of them. */
static int add_string(const char **list, size_t *count, size_t max, const struct wire_field *f)
{
	if (*count == max)
		return -E2BIG;
	return wire_string(f, &list[(*count)++]);
}

static int mount_field(struct create_request *out, struct mount_request *m, const struct wire_field *f)
{
	int rc;

	switch (f->tag) {
	case GM_TAG_TARGET:
		return wire_string(f, &m->target);
	case GM_TAG_UPPER:
		return wire_string(f, &m->upper);
	case GM_TAG_WORK:
		return wire_string(f, &m->work);
	case GM_TAG_SOURCE:
		return wire_string(f, &m->source);
	case GM_TAG_FROM_PID:
		return wire_u32(f, &m->from_pid);
	case GM_TAG_IDS_PID:
		return wire_u32(f, &m->ids_pid);
	case GM_TAG_LOWER:
		rc = add_string(out->lower, &out->lower_count, MAX_LOWER, f);
		m->lower_count += rc == 0;
		return rc;
	case GM_TAG_OPTION:
		rc = add_string(out->option, &out->option_count, MAX_OPTIONS, f);
		m->option_count += rc == 0;
		return rc;
	default:
		return wire_unknown(f);
	}
}

/* An absolute path, or an absent one. */
static bool path_ok(const char *path)
{
	return !path || path[0] == '/';
}

static int mount_check(const struct mount_request *m)
{
	if (!m->target || !path_ok(m->target) || !path_ok(m->upper) || !path_ok(m->work) || !path_ok(m->source))
		return -EINVAL;
	for (size_t i = 0; i < m->lower_count; i++)
		if (!path_ok(m->lower[i]))
			return -EINVAL;
	if (m->from_pid != 0)
		return m->source && m->lower_count == 0 && !m->upper && !m->work && m->ids_pid == 0 ? 0 : -EINVAL;
	return m->lower_count > 0 && !m->source && !m->upper == !m->work ? 0 : -EINVAL;
}

static int add_mount(struct create_request *out, const struct wire_field *field)
{
	struct wire_reader r = wire_nested(field);
	struct mount_request *m;
	struct wire_field f;
	int rc;

	if (out->mount_count == MAX_MOUNTS)
		return -E2BIG;
	m = &out->mounts[out->mount_count++];
	m->lower = out->lower + out->lower_count;
	m->option = out->option + out->option_count;
	while ((rc = wire_next(&r, &f)) > 0) {
		rc = mount_field(out, m, &f);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : mount_check(m);
}

static int create_field(struct create_request *out, const struct wire_field *f)
{
	switch (f->tag) {
	case GM_TAG_CONTAINER:
		return wire_string(f, &out->container);
	case GM_TAG_ARG:
		return add_string(out->args, &out->arg_count, MAX_ARGS, f);
	case GM_TAG_PID_FILE:
		return wire_string(f, &out->pid_file);
	case GM_TAG_EXIT_FILE:
		return wire_string(f, &out->exit_file);
	case GM_TAG_LOG_PATH:
		return wire_string(f, &out->log_path);
	case GM_TAG_LOG_LIMIT:
		return wire_u64(f, &out->log_limit);
	case GM_TAG_OOM_FILE:
		return wire_string(f, &out->oom_file);
	case GM_TAG_FLAGS:
		return wire_u32(f, &out->flags);
	case GM_TAG_CONSOLE:
		return wire_string(f, &out->console);
	case GM_TAG_JOURNAL:
		return wire_string(f, &out->journal);
	case GM_TAG_JOURNAL_FIELDS:
		out->journal_fields = f->data;
		out->journal_fields_len = f->len;
		return 0;
	case GM_TAG_TIMEOUT_MS:
		return wire_u32(f, &out->timeout_ms);
	case GM_TAG_OWNER_UID:
		return wire_u32(f, &out->owner_uid);
	case GM_TAG_OWNER_GID:
		return wire_u32(f, &out->owner_gid);
	case GM_TAG_MOUNT:
		return add_mount(out, f);
	default:
		return wire_unknown(f);
	}
}

static int create_check(const struct create_request *r)
{
	bool tty = r->flags & GM_TTY;

	if (!valid_id(r->container) || r->arg_count == 0 || !path_ok(r->args[0]))
		return -EINVAL;
	if (!r->pid_file || !r->exit_file || !path_ok(r->pid_file) || !path_ok(r->exit_file))
		return -EINVAL;
	if (!path_ok(r->log_path) || !path_ok(r->oom_file) || !path_ok(r->console) || !path_ok(r->journal))
		return -EINVAL;
	if (r->journal_fields_len > MAX_JOURNAL_FIELDS || (r->journal_fields && !r->journal))
		return -EINVAL;
	return tty == (r->console != NULL) && r->timeout_ms > 0 ? 0 : -EINVAL;
}

int create_request_parse(struct wire_reader r, struct create_request *out)
{
	struct wire_field f;
	int rc;

	memset(out, 0, sizeof(*out));
	while ((rc = wire_next(&r, &f)) > 0) {
		rc = create_field(out, &f);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : create_check(out);
}
