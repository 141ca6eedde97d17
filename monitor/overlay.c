#include <stdio.h>

#include "mountcalls.h"
#include "mounts.h"
#include "sys.h"

/* fsconfig takes strings up to 255 bytes, mount(2) one page of options. */
#define MAX_CONFIG 255
#define MAX_OPTIONS_TEXT 4095

/* Room for "/proc/self/fd/N". */
#define FD_NAME 32

/* Another name for the directory, short and without characters that options
 * must escape. The descriptor behind it is left open until the process ends. */
static int short_name(const char *path, struct text *name)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	text_add(name, "/proc/self/fd/");
	text_number(name, (uint64_t)fd);
	return 0;
}

/* One fsconfig string; a path that is too long gets another name. */
static int set_path(int fs, const char *key, const char *path)
{
	TEXT(name, FD_NAME);

	if (strlen(path) > MAX_CONFIG) {
		int rc = short_name(path, &name);

		if (rc < 0)
			return rc;
		path = name.buf;
	}
	return call_fsconfig(fs, FSCONFIG_SET_STRING, key, path) < 0 ? -errno : 0;
}

/* One mount option, "flag" or "key=value". */
static int set_option(int fs, const char *option)
{
	const char *equals = strchr(option, '=');
	AUTO_FREE char *key = equals ? strndup(option, (size_t)(equals - option)) : NULL;
	int rc;

	if (equals && !key)
		return -ENOMEM;
	rc = equals ? call_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1) :
		      call_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL);
	return rc < 0 ? -errno : 0;
}

static int configure(int fs, const struct mount_request *m, struct text *error)
{
	const char *what = "source";
	int rc = call_fsconfig(fs, FSCONFIG_SET_STRING, "source", "overlay") < 0 ? -errno : 0;

	for (size_t i = 0; rc == 0 && i < m->lower_count; i++)
		rc = set_path(fs, "lowerdir+", what = m->lower[i]);
	if (rc == 0 && m->upper)
		rc = set_path(fs, "upperdir", what = m->upper);
	if (rc == 0 && m->work)
		rc = set_path(fs, "workdir", what = m->work);
	for (size_t i = 0; rc == 0 && i < m->option_count; i++)
		rc = set_option(fs, what = m->option[i]);
	if (rc < 0) {
		text_add(error, ": ");
		text_add(error, what);
	}
	return rc;
}

/* Adds what the kernel says about a failed configuration. */
static void add_kernel_words(int fs, struct text *error)
{
	char words[256];
	ssize_t n = read(fs, words, sizeof(words));

	if (n <= 0)
		return;
	text_add(error, ": ");
	text_bytes(error, words, (size_t)n);
}

/* An overlay made with the mount API of Linux 6.8 and newer. */
static int make_detached(const struct mount_request *m, struct text *error)
{
	AUTO_CLOSE int fs = call_fsopen("overlay");
	int rc, fd;

	if (fs < 0)
		return -errno;
	rc = configure(fs, m, error);
	if (rc == 0 && call_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
		rc = -errno;
	if (rc < 0) {
		add_kernel_words(fs, error);
		return rc;
	}
	fd = call_fsmount(fs);
	return fd < 0 ? -errno : fd;
}

/* Whether this kernel takes lower directories one by one. Before Linux 6.5 it
 * takes any word here, and refuses the mount. */
static bool has_lowerdir_plus(const struct mount_request *m)
{
	AUTO_CLOSE int fs = call_fsopen("overlay");

	return fs >= 0 && call_fsconfig(fs, FSCONFIG_SET_FLAG, "no-such-option", NULL) < 0 &&
	       set_path(fs, "lowerdir+", m->lower[0]) != -EINVAL;
}

/* Adds a directory to an option text; by another name if need be. */
static int add_directory(struct text *options, const char *path, bool rename)
{
	TEXT(name, FD_NAME);
	int rc = 0;

	if (rename || strpbrk(path, ",:\\"))
		rc = short_name(path, &name);
	text_add(options, name.len > 0 ? name.buf : path);
	return rc;
}

/* One option; the commas in a value (SELinux categories) end it unless it is quoted. */
static void add_option(struct text *options, const char *option)
{
	const char *equals = strchr(option, '=');

	text_add(options, ",");
	if (!equals || !strchr(equals, ',')) {
		text_add(options, option);
		return;
	}
	for (const char *c = option; c <= equals; c++)
		text_add(options, (char[]){ *c, 0 });
	text_add(options, "\"");
	text_add(options, equals + 1);
	text_add(options, "\"");
}

static int option_text(const struct mount_request *m, struct text *options, bool rename)
{
	int rc = 0;

	text_add(options, "lowerdir=");
	for (size_t i = 0; rc == 0 && i < m->lower_count; i++) {
		if (i > 0)
			text_add(options, ":");
		rc = add_directory(options, m->lower[i], rename);
	}
	if (rc == 0 && m->upper) {
		text_add(options, ",upperdir=");
		rc = add_directory(options, m->upper, rename);
	}
	if (rc == 0 && m->work) {
		text_add(options, ",workdir=");
		rc = add_directory(options, m->work, rename);
	}
	for (size_t i = 0; i < m->option_count; i++)
		add_option(options, m->option[i]);
	return rc < 0 ? rc : options->len == options->cap - 1 ? -E2BIG : 0;
}

/* An overlay made with mount(2). */
static int mount_classic(const struct mount_request *m, struct text *error)
{
	AUTO_FREE char *buf = malloc(MAX_OPTIONS_TEXT + 1);
	struct text options = { .buf = buf, .cap = MAX_OPTIONS_TEXT + 1 };
	int rc;

	if (!buf)
		return -ENOMEM;
	rc = option_text(m, &options, false);
	if (rc == -E2BIG) {
		options.len = 0;
		rc = option_text(m, &options, true);
	}
	if (rc == 0 && call_mount("overlay", m->target, "overlay", 0, options.buf) < 0)
		rc = -errno;
	if (rc < 0) {
		text_add(error, ": ");
		text_add(error, m->target);
		return rc;
	}
	return MOUNT_DONE;
}

int overlay_make(const struct mount_request *m, struct text *error)
{
	/* One layer alone is no overlay: the empty target goes below it. A
	 * read-only bind mount would not do, as runtimes may lift that. */
	const char *two[] = { m->lower[0], m->target };
	struct mount_request filled = *m;

	text_add(error, "mount overlay");
	if (!m->upper && m->lower_count == 1) {
		filled.lower = two;
		filled.lower_count = 2;
	}
	return has_lowerdir_plus(&filled) ? make_detached(&filled, error) : mount_classic(&filled, error);
}
