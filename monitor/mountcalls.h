/* The mount system calls, which not every libc in use declares. */
#ifndef GANTRY_MOUNTCALLS_H
#define GANTRY_MOUNTCALLS_H

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DETACH_MOUNT 2 /* MNT_DETACH */

#ifndef MOVE_MOUNT_SET_GROUP
#define MOVE_MOUNT_SET_GROUP 0x00000100
#endif
static inline int call_mount(const char *source, const char *target, const char *type, unsigned long flags,
			     const char *options)
{
	return (int)syscall(SYS_mount, source, target, type, flags, options);
}

static inline int call_open_tree(int dir, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, dir, path, flags);
}

static inline int call_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags)
{
	return (int)syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}

static inline int call_mount_setattr(int mount, const struct mount_attr *attr)
{
	return (int)syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, attr, sizeof(*attr));
}

static inline int call_unmount(const char *target, int flags)
{
	return (int)syscall(SYS_umount2, target, flags);
}

static inline int call_fsopen(const char *type)
{
	return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

static inline int call_fsconfig(int fs, unsigned command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, command, key, value, 0);
}

static inline int call_fsmount(int fs)
{
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
}

#endif
