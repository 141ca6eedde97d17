/* The exit record: its form, and that it needs no room at the exit. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../record.h"
#include "check.h"

static char path[] = "/tmp/montest-record-XXXXXX";
static char body[RECORD_SIZE + 1];

static void load(void)
{
	int fd = open(path, O_RDONLY);

	CHECK(read(fd, body, sizeof(body)) == RECORD_SIZE);
	body[RECORD_SIZE] = '\0';
	close(fd);
}

static void test_form(void)
{
	const struct exit_state e = {
		.code = 137, .signal = 9, .oom_killed = true, .finished = INT64_MAX, .log_lost = UINT64_MAX
	};
	int fd = record_create(path);

	CHECK(fd >= 0);
	load();
	CHECK(strstr(body, "\"finished\":0,\"exit_code\":0,") && body[RECORD_SIZE - 1] == '\n');
	CHECK(record_write(fd, &e) == 0);
	load();
	CHECK(strstr(body, "\"finished\":9223372036854775807,\"exit_code\":137,\"signal\":9,\"oom_killed\":true,"));
	CHECK(strstr(body, "\"log_lost\":18446744073709551615,\"sum\":"));
	CHECK(strchr(body, '}') && body[RECORD_SIZE - 1] == '\n');
	close(fd);
}

static void test_full_disk(void)
{
	const struct exit_state e = { .code = 1, .finished = 1 };
	const struct rlimit none = { .rlim_cur = RECORD_SIZE, .rlim_max = RECORD_SIZE };
	int fd = record_create(path);

	/* Not a byte may be added to any file from here on. */
	signal(SIGXFSZ, SIG_IGN);
	CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
	CHECK(record_write(fd, &e) == 0);
	load();
	CHECK(strstr(body, "\"finished\":1,\"exit_code\":1,"));
	close(fd);
}

static void test_status(void)
{
	struct exit_state e = { 0 };

	record_status(&e, 7 << 8);
	CHECK(e.code == 7 && e.signal == 0);
	record_status(&e, SIGSEGV | 0x80);
	CHECK(e.code == 128 + SIGSEGV && e.signal == SIGSEGV);
}

int main(void)
{
	int fd = mkstemp(path);

	close(fd);
	CHECK(record_create("/no/such/file") < 0);
	test_form();
	test_status();
	test_full_disk();
	unlink(path);
	return report("record");
}
