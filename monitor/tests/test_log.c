/* The log writer: examples, then random operations against the model. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../log.h"
#include "check.h"
#include "logmodel.h"

#define ROUNDS 400

static char dir[] = "/tmp/montest-log-XXXXXX";
static char data[65536];
static uint64_t seed;

static uint32_t chance(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % below;
}

/* Random output: some full of newlines, some with none, some binary. */
static size_t make_output(void)
{
	size_t len = chance(4) ? chance(300) : chance(sizeof(data) + 1);
	uint32_t lines = chance(3);

	for (size_t i = 0; i < len; i++) {
		data[i] = (char)chance(256);
		if (data[i] == '\n' && lines == 0)
			data[i] = 'x';
		if (lines == 2 && chance(2) == 0)
			data[i] = '\n';
	}
	return len;
}

static void one_round(uint64_t limit, int with_full_disk)
{
	struct logmodel *m = logmodel_new(dir, limit);
	uint32_t steps = 1 + chance(40);

	for (uint32_t i = 0; i < steps; i++) {
		switch (chance(12)) {
		case 0:
			logmodel_idle(m, (int)chance(2));
			break;
		case 1:
			if (limit == 0) /* a limited log removes its old records */
				logmodel_rotate(m);
			break;
		case 2:
			if (with_full_disk)
				logmodel_disk(m, chance(3) ? 1 + chance(200000) : 0);
			break;
		default:
			logmodel_feed(m, (int)chance(2), data, make_output());
		}
	}
	if (with_full_disk)
		logmodel_disk(m, 0);
	if (!logmodel_finish(m)) {
		failures++;
		fprintf(stderr, "round failed: limit %lu, disk %d\n", (unsigned long)limit, with_full_disk);
	}
}

static void test_limit(void)
{
	struct log_sink sink = { .fd = -1, .limit = 100000 };
	struct log_stream stream = { .name = "stdout" };
	struct log_time clock = { 0 };
	struct timespec now = { .tv_sec = 1700000000 };
	struct log_batch b = { .sink = &sink, .stream = &stream, .buf = malloc(LOG_BUFFER) };
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "%s/limited", dir);
	CHECK(log_open(&sink, path) == 0);
	memset(data, 'y', sizeof(data));
	for (size_t i = 99; i < sizeof(data); i += 100)
		data[i] = '\n';
	for (int i = 0; i < 100; i++) {
		log_begin(&b, &clock, &now);
		log_lines(&b, data, 20000);
		log_flush(&b);
		CHECK(stat(path, &st) == 0 && st.st_size > 0 && st.st_size <= 100000);
	}
	log_close(&sink);
	unlink(path);
	free(b.buf);
}

/* A stream that never pauses is written again soon after the disk has room. */
static void test_recovers_under_load(void)
{
	struct log_sink sink = { .fd = -1 };
	struct log_stream stream = { .name = "stdout" };
	struct log_time clock = { 0 };
	struct timespec now = { .tv_sec = 1700000000 };
	struct log_batch b = { .sink = &sink, .stream = &stream, .buf = malloc(LOG_BUFFER) };
	struct rlimit full;
	uint64_t lost = 0;
	char path[64];

	snprintf(path, sizeof(path), "%s/recovers", dir);
	CHECK(log_open(&sink, path) == 0);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &full);
	for (b.now_ms = 1; b.now_ms < 2000; b.now_ms += 7) {
		bool filled = b.now_ms > 100 && b.now_ms < 1000;
		struct rlimit limit = { .rlim_cur = filled ? 100 : full.rlim_max, .rlim_max = full.rlim_max };

		setrlimit(RLIMIT_FSIZE, &limit);
		log_begin(&b, &clock, &now);
		log_lines(&b, "a line\n", 7);
		log_flush(&b);
		if (b.now_ms < 1000 + LOG_RETRY_MS)
			lost = sink.lost;
	}
	CHECK(lost > 0 && sink.lost <= lost + 7);
	CHECK(sink.retry_at == 0);
	log_close(&sink);
	unlink(path);
	free(b.buf);
}

static void test_dates(void)
{
	static const struct {
		time_t second;
		const char *date;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00" },	      { 951782399, "2000-02-28T23:59:59" },
		{ 951782400, "2000-02-29T00:00:00" }, { 951868800, "2000-03-01T00:00:00" },
		{ 1709164800, "2024-02-29T00:00:00" }, { 1735689599, "2024-12-31T23:59:59" },
		{ 4107542399, "2100-02-28T23:59:59" }, { 4107542400, "2100-03-01T00:00:00" },
	};
	struct log_sink sink = { .fd = -1 };
	struct log_stream stream = { .name = "stdout" };
	struct log_time clock = { 0 };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct timespec now = { .tv_sec = cases[i].second, .tv_nsec = 42 };
		struct log_batch b = { .sink = &sink, .stream = &stream };

		log_begin(&b, &clock, &now);
		CHECK(memcmp(b.prefix, cases[i].date, 19) == 0);
		CHECK(memcmp(b.prefix + 19, ".000000042Z stdout F ", 21) == 0);
	}
}

static void test_refuses_other_files(void)
{
	struct log_sink sink = { .fd = -1 };
	char path[64];

	snprintf(path, sizeof(path), "%s/fifo", dir);
	CHECK(mkfifo(path, 0600) == 0);
	CHECK(log_open(&sink, path) < 0);
	unlink(path);
	CHECK(symlink("/etc/passwd", path) == 0);
	CHECK(log_open(&sink, path) < 0);
	unlink(path);
	CHECK(log_open(&sink, dir) < 0);
	CHECK(sink.fd == -1 && sink.path == NULL);
}

int main(int argc, char **argv)
{
	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
	printf("log: seed %lu\n", (unsigned long)seed);
	if (!mkdtemp(dir))
		return 1;
	test_dates();
	test_refuses_other_files();
	test_limit();
	test_recovers_under_load();
	for (int i = 0; i < ROUNDS; i++) {
		one_round(0, 0);
		one_round(0, 1);
		one_round(LOG_MIN_LIMIT + chance(100000), 0);
	}
	rmdir(dir);
	return report("log");
}
