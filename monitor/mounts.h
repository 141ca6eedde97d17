/*
 * The mounts of one container, made in a mount namespace that lives only as
 * long as RUNTIME create: the container's own namespace is a copy of it. The
 * node's namespace never sees them, so nothing has to be unmounted.
 */
#ifndef GANTRY_MOUNTS_H
#define GANTRY_MOUNTS_H

#include "request.h"
#include "text.h"

/*
 * Moves the calling process into a new mount namespace with r's mounts.
 * namespaces[i] is the mount namespace that mount i is taken from, where it has
 * a from_pid, or the user namespace of its ids_pid. 0, or a negative errno with a sentence in error; then the process
 * is fit only to exit.
 */
int mounts_enter(const struct create_request *r, const int *namespaces, struct text *error);

/*
 * Makes an overlay that is attached nowhere yet: a descriptor for move_mount, or
 * a negative errno with a sentence in error. On a kernel that can't do so it is
 * mounted on the target at once and the result is MOUNT_DONE.
 */
#define MOUNT_DONE 0x7fffffff
int overlay_make(const struct mount_request *m, struct text *error);

/*
 * The same where the layers' ids are to be mapped as the user namespace says,
 * which is a descriptor. The result is never MOUNT_DONE.
 */
int overlay_make_mapped(const struct mount_request *m, int user_namespace, struct text *error);

#endif
