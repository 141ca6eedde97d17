#include "mounts.h"

#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "mountcalls.h"
#include "sys.h"

/* Directories are climbed at most so far; a path has no more components. */
#define MAX_DEPTH 2048

/* Opens the root of the mount that path lies in. */
static int mount_root(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statx st;

	for (int depth = 0; fd >= 0 && depth < MAX_DEPTH; depth++) {
		int parent;

		if (statx(fd, "", AT_EMPTY_PATH, 0, &st) < 0)
			return -errno;
		if (!(st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
			return -ENOSYS; /* older than Linux 5.8 */
		if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
			return take_fd(&fd);
		parent = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close_fd(&fd);
		fd = parent;
	}
	return fd < 0 ? -errno : -ELOOP;
}

/* Sets how events pass between a mount and its peers. */
static int set_propagation(int root, unsigned long how)
{
	TEXT(name, 32);

	text_add(&name, "/proc/self/fd/");
	text_number(&name, (uint64_t)root);
	return call_mount(NULL, name.buf, NULL, how, NULL) < 0 ? -errno : 0;
}

/* Whether a mount can join a sharing group: Linux 5.15. */
static bool can_join_group(void)
{
	struct utsname name;
	long major, minor;
	char *rest;

	if (uname(&name) < 0)
		return false;
	major = strtol(name.release, &rest, 10);
	minor = *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
	return major > 5 || (major == 5 && minor >= 15);
}

static int attach(int mount, const char *target)
{
	return call_move_mount(mount, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

/* What must be found before the new namespace is entered. */
struct prepared {
	int host_root; /* root of the mount that holds the target, in the node's namespace */
	int detached;  /* a fetched mount, or -1 */
	int ids;       /* the user namespace that maps an overlay's ids, or -1 */
};

/*
 * Attaches one mount, without its appearing anywhere else. If the mount that
 * holds the target is shared, everything attached to it propagates to the node:
 * so it leaves its group first and joins it again afterwards, lest the volumes
 * on it lose the propagation that their containers may ask for.
 */
static int attach_alone(const struct mount_request *m, const struct prepared *p, struct text *error)
{
	AUTO_CLOSE int root = mount_root(m->target);
	bool rejoin = can_join_group();
	int detached = p->detached;
	int rc;

	if (root < 0) {
		text_add(error, "find the mount of ");
		text_add(error, m->target);
		return root;
	}
	/* Where it can't join again, a slave still receives what the node mounts. */
	rc = set_propagation(root, rejoin ? MS_PRIVATE : MS_SLAVE);
	if (rc < 0) {
		text_add(error, "set propagation around ");
		text_add(error, m->target);
		return rc;
	}
	if (detached >= 0)
		text_add(error, "attach mount");
	else if (p->ids >= 0)
		detached = rc = overlay_make_mapped(m, p->ids, error);
	else
		detached = rc = overlay_make(m, error);
	if (rc >= 0 && detached != MOUNT_DONE) {
		text_add(error, " on ");
		text_add(error, m->target);
		rc = attach(detached, m->target);
	}
	if (rc >= 0 && rejoin) /* EINVAL: it was not shared */
		call_move_mount(p->host_root, "", root, "",
				MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	return rc < 0 ? rc : 0;
}

/* Takes a copy of a mount out of another mount namespace and comes back. */
static int fetch(const struct mount_request *m, int namespace, struct text *error)
{
	AUTO_CLOSE int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int tree = -1;
	int rc = 0;

	text_add(error, "take mount ");
	text_add(error, m->source);
	if (home < 0 || cwd < 0 || setns(namespace, CLONE_NEWNS) < 0)
		return -errno;
	tree = call_open_tree(AT_FDCWD, m->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		rc = -errno;
	if ((setns(home, CLONE_NEWNS) < 0 || fchdir(cwd) < 0) && rc == 0)
		rc = -errno;
	return rc < 0 ? rc : take_fd(&tree);
}

static int prepare(const struct mount_request *m, int namespace, struct prepared *p, struct text *error)
{
	p->detached = -1;
	p->ids = m->ids_pid != 0 ? namespace : -1;
	p->host_root = mount_root(m->target);
	if (p->host_root < 0) {
		text_add(error, "find the mount of ");
		text_add(error, m->target);
		return p->host_root;
	}
	if (m->from_pid == 0)
		return 0;
	p->detached = fetch(m, namespace, error);
	return p->detached < 0 ? p->detached : 0;
}

int mounts_enter(const struct create_request *r, const int *namespaces, struct text *error)
{
	struct prepared prepared[MAX_MOUNTS];
	int rc = 0;

	/* Descriptors are left to the exec that follows: all are close-on-exec. */
	for (size_t i = 0; rc == 0 && i < r->mount_count; i++)
		rc = prepare(&r->mounts[i], namespaces[i], &prepared[i], error);
	if (rc == 0 && unshare(CLONE_NEWNS) < 0) {
		text_add(error, "make a mount namespace");
		rc = -errno;
	}
	for (size_t i = 0; rc == 0 && i < r->mount_count; i++) {
		error->len = 0;
		rc = attach_alone(&r->mounts[i], &prepared[i], error);
	}
	if (rc < 0)
		text_errno(error, -rc);
	return rc;
}
