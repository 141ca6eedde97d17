/* The count of kills for lack of memory, in the forms that the kernel gives it. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../oom.h"
#include "check.h"

static char path[] = "/tmp/montest-oom-XXXXXX";

static uint64_t count(const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	return oom_kills(path);
}

static void test_version_1(void)
{
	CHECK(count("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n") == 0);
	CHECK(count("oom_kill_disable 1\nunder_oom 1\noom_kill 3\n") == 3);
}

static void test_version_2(void)
{
	CHECK(count("low 0\nhigh 9\nmax 12\noom 4\noom_kill 0\noom_group_kill 0\n") == 0);
	CHECK(count("low 0\nhigh 9\nmax 12\noom 4\noom_kill 2\noom_group_kill 1\nsock_throttled 0\n") == 2);
	CHECK(count("oom_kill 18446744073709551615\n") == UINT64_MAX);
}

static void test_unusable(void)
{
	char many[2048];

	CHECK(count("") == 0);
	CHECK(count("oom_kill") == 0);
	CHECK(count("oom_kill \n") == 0);
	CHECK(count("xoom_kill 1\n") == 0);
	memset(many, 'x', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	CHECK(count(many) == 0);
	CHECK(oom_kills(NULL) == 0);
	CHECK(oom_kills("/no/such/file") == 0);
	CHECK(oom_kills("/proc") == 0);
}

int main(void)
{
	close(mkstemp(path));
	test_version_1();
	test_version_2();
	test_unusable();
	unlink(path);
	return report("oom");
}
