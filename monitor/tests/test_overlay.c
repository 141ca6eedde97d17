/*
 * Overlays by either mount API, whichever this kernel would choose. Runs as root
 * in a mount namespace of its own.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* The way that is not taken on this kernel is static in there. */
#include "../overlay.c"
#include "check.h"

#define LAYERS 200
#define LAZILY 2 /* MNT_DETACH */

static char base[] = "/tmp/montest-overlay-XXXXXX";

struct tree {
	char *lower[LAYERS];
	char *upper, *work, *target;
	struct mount_request request;
};

static void detach(const char *target)
{
	CHECK(syscall(SYS_umount2, target, LAZILY) == 0);
}

static char *directory(const char *name)
{
	char *path;

	CHECK(asprintf(&path, "%s/%s", base, name) > 0);
	CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
	return path;
}

/* Layers whose names hold suffix; each has a file of its own. */
static void make_tree(struct tree *t, int count, const char *suffix)
{
	memset(t, 0, sizeof(*t));
	for (int i = 0; i < count; i++) {
		char name[300], file[400];
		int fd;

		snprintf(name, sizeof(name), "lower%d%s", i, suffix);
		t->lower[i] = directory(name);
		snprintf(file, sizeof(file), "%s/file%d", t->lower[i], i);
		fd = open(file, O_WRONLY | O_CREAT, 0644);
		CHECK(fd >= 0);
		close(fd);
	}
	t->upper = directory("upper");
	t->work = directory("work");
	t->target = directory("target");
	t->request.target = t->target;
	t->request.lower = (const char *const *)t->lower;
	t->request.lower_count = (size_t)count;
}

static void free_tree(struct tree *t)
{
	for (int i = 0; i < LAYERS; i++)
		free(t->lower[i]);
	free(t->upper);
	free(t->work);
	free(t->target);
}

static int present(const struct tree *t)
{
	int count = 0;

	for (int i = 0; i < LAYERS; i++) {
		char file[400];

		snprintf(file, sizeof(file), "%s/file%d", t->target, i);
		count += access(file, F_OK) == 0;
	}
	return count;
}

static void try_classic(int count, const char *suffix, bool writable)
{
	TEXT(error, 1024);
	struct tree t;
	int rc;

	make_tree(&t, count, suffix);
	if (writable) {
		t.request.upper = t.upper;
		t.request.work = t.work;
	}
	rc = mount_classic(&t.request, &error);
	if (rc != MOUNT_DONE)
		fprintf(stderr, "%s: %s\n", error.buf, strerror(-rc));
	CHECK(rc == MOUNT_DONE);
	CHECK(present(&t) == count);
	detach(t.target);
	free_tree(&t);
}

static void try_detached(int count, const char *suffix)
{
	TEXT(error, 1024);
	struct tree t;
	int fd;

	make_tree(&t, count, suffix);
	t.request.upper = t.upper;
	t.request.work = t.work;
	if (!has_lowerdir_plus(&t.request)) {
		printf("overlay: this kernel has only the old way\n");
		free_tree(&t);
		return;
	}
	fd = make_detached(&t.request, &error);
	CHECK(fd >= 0);
	CHECK(call_move_mount(fd, "", AT_FDCWD, t.target, MOVE_MOUNT_F_EMPTY_PATH) == 0);
	CHECK(present(&t) == count);
	close(fd);
	detach(t.target);
	free_tree(&t);
}

/* A user namespace whose root is 100000 on the node. */
static int user_namespace(void)
{
	char path[64], done;
	int ready[2], fd;
	pid_t pid;

	CHECK(pipe(ready) == 0);
	pid = fork();
	if (pid == 0) {
		CHECK(unshare(CLONE_NEWUSER) == 0 && write(ready[1], "", 1) == 1);
		pause();
		_exit(0);
	}
	CHECK(read(ready[0], &done, 1) == 1);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, i ? "gid_map" : "uid_map");
		fd = open(path, O_WRONLY);
		CHECK(write(fd, "0 100000 1000", 13) == 13);
		close(fd);
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	fd = open(path, O_RDONLY);
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	close(ready[0]);
	close(ready[1]);
	return fd;
}

/* Files have the owners that the namespace maps, and the target is left bare. */
static void try_mapped(int count, bool writable)
{
	TEXT(error, 1024);
	char file[400];
	struct stat st;
	struct tree t;
	int ids = user_namespace(), fd;

	make_tree(&t, count, "");
	if (writable) {
		t.request.upper = t.upper;
		t.request.work = t.work;
	}
	fd = overlay_make_mapped(&t.request, ids, &error);
	if (fd < 0)
		fprintf(stderr, "%s: %s\n", error.buf, strerror(-fd));
	CHECK(fd >= 0 && fd != MOUNT_DONE);
	CHECK(present(&t) == 0);
	CHECK(call_unmount(t.target, DETACH_MOUNT) < 0 && errno == EINVAL);
	CHECK(call_move_mount(fd, "", AT_FDCWD, t.target, MOVE_MOUNT_F_EMPTY_PATH) == 0);
	CHECK(present(&t) == count);
	snprintf(file, sizeof(file), "%s/file0", t.target);
	CHECK(stat(file, &st) == 0 && st.st_uid == 100000 && st.st_gid == 100000);
	snprintf(file, sizeof(file), "%s/file0", t.lower[0]);
	CHECK(stat(file, &st) == 0 && st.st_uid == 0);
	close(fd);
	close(ids);
	detach(t.target);
	free_tree(&t);
}

static void test_errors(void)
{
	TEXT(error, 1024);
	const char *missing[] = { "/no/such/layer", "/no/such/other" };
	struct mount_request r = { .target = base, .lower = missing, .lower_count = 2 };

	CHECK(mount_classic(&r, &error) == -ENOENT);
	error.len = 0;
	CHECK(make_detached(&r, &error) < 0);
	error.len = 0;
	r.lower_count = 1;
	CHECK(overlay_make(&r, &error) == -ENOENT && strstr(error.buf, "/no/such/layer"));
	error.len = 0;
	CHECK(overlay_make_mapped(&r, -1, &error) == -ENOENT && strstr(error.buf, "/no/such/layer"));
}

int main(void)
{
	static char padding[240];

	memset(padding, 'p', sizeof(padding) - 1);
	if (unshare(CLONE_NEWNS) < 0 || call_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(base)) {
		perror("overlay: set-up");
		return 1;
	}
	CHECK(call_mount("montest", base, "tmpfs", 0, "") == 0);
	try_classic(3, "", true);
	try_classic(3, "", false);
	try_classic(3, ",a:b\\c", true);
	try_classic(LAYERS, padding, true); /* far over a page of options */
	try_detached(3, "");
	try_detached(3, ",a:b\\c");
	try_detached(LAYERS, padding);
	try_mapped(1, false);
	try_mapped(1, true);
	try_mapped(3, false);
	try_mapped(3, true);
	test_errors();
	detach(base);
	rmdir(base);
	return report("overlay");
}
