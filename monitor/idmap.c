#include <stdio.h>

#include "mountcalls.h"
#include "mounts.h"
#include "sys.h"

/* Room for "/proc/self/fd/N". */
#define FD_NAME 32

/* The mapped copies of an overlay's layers, top first. */
struct copies {
	size_t count;
	int *fds;
	char (*names)[FD_NAME];
	const char **list; /* the names, as a mount request has them */
	size_t attached;
};

static int copies_allocate(struct copies *c, size_t count)
{
	*c = (struct copies){ 0 };
	c->fds = calloc(count, sizeof(*c->fds));
	c->names = calloc(count, sizeof(*c->names));
	c->list = calloc(count, sizeof(*c->list));
	return c->fds && c->names && c->list ? 0 : -ENOMEM;
}

/* The descriptors are closed too: the overlay has copies of its own. */
static void copies_free(struct copies *c)
{
	for (size_t i = 0; i < c->count; i++)
		close(c->fds[i]);
	free(c->fds);
	free(c->names);
	free(c->list);
}

/* Takes a descriptor, or the error of what should have opened it. */
static int copies_add(struct copies *c, int fd)
{
	struct text name = { .buf = c->names[c->count], .cap = FD_NAME };

	if (fd < 0)
		return -errno;
	text_add(&name, "/proc/self/fd/");
	text_number(&name, (uint64_t)fd);
	c->fds[c->count] = fd;
	c->list[c->count++] = name.buf;
	return 0;
}

/*
 * Makes a copy of the mount of one layer, from the layer's directory down, in
 * which ids are mapped. Private: what is mounted on it must not appear on the node.
 */
static int copies_map(struct copies *c, const char *layer, int user_namespace)
{
	const struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_IDMAP,
		.propagation = MS_PRIVATE,
		.userns_fd = (uint64_t)user_namespace,
	};
	int rc = copies_add(c, call_open_tree(AT_FDCWD, layer, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));

	return rc == 0 && call_mount_setattr(c->fds[c->count - 1], &attr) < 0 ? -errno : rc;
}

/* Older kernels take no layer that is mounted nowhere: all go onto the target,
 * one upon the other, and are found by their descriptors. */
static int copies_attach(struct copies *c, size_t count, const char *target)
{
	for (; c->attached < count; c->attached++)
		if (call_move_mount(c->fds[c->attached], "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return -errno;
	return 0;
}

static int copy_layers(const struct mount_request *m, int user_namespace, struct copies *c, struct text *error)
{
	int rc = copies_allocate(c, m->lower_count + 1);

	for (size_t i = 0; rc == 0 && i < m->lower_count; i++) {
		rc = copies_map(c, m->lower[i], user_namespace);
		if (rc < 0) {
			text_add(error, "map the ids of ");
			text_add(error, m->lower[i]);
		}
	}
	/* As in overlay_make, but now: later the target is covered. */
	if (rc == 0 && !m->upper && m->lower_count == 1)
		rc = copies_add(c, open(m->target, O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (rc == 0) {
		rc = copies_attach(c, m->lower_count, m->target);
		if (rc < 0)
			text_add(error, "attach layers with mapped ids");
	}
	return rc;
}

/* Uncovers the target. An overlay that is mounted there already is taken off as well. */
static int uncover(const struct copies *c, const char *target, int overlay)
{
	size_t count = c->attached;

	if (overlay == MOUNT_DONE) {
		overlay = call_open_tree(AT_FDCWD, target, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (overlay < 0)
			return -errno;
		count++;
	}
	for (size_t i = 0; i < count; i++)
		if (call_unmount(target, DETACH_MOUNT) < 0)
			return -errno;
	return overlay;
}

int overlay_make_mapped(const struct mount_request *m, int user_namespace, struct text *error)
{
	struct mount_request mapped = *m;
	struct copies c;
	int rc = copy_layers(m, user_namespace, &c, error);

	if (rc == 0) {
		mapped.lower = c.list;
		mapped.lower_count = c.count;
		rc = overlay_make(&mapped, error);
	}
	if (rc >= 0)
		rc = uncover(&c, m->target, rc);
	copies_free(&c);
	return rc;
}
