#include "logmodel.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../log.h"
#include "../sys.h"
#include "../text.h"

#define READ_MAX 65536

struct bytes {
	char *data;
	size_t len, cap;
};

struct logmodel {
	char *dir;
	struct log_sink sink;
	struct log_time clock;
	struct log_stream streams[2];
	char *carry[2]; /* what stream.c would keep */
	size_t carry_len[2];
	struct bytes input[2];	  /* all that was fed */
	struct bytes expected[2]; /* records, without times, if nothing is lost */
	size_t line_len[2];	  /* of the line that is not finished, since its last P */
	unsigned rotations;
	uint64_t now_ms;
	bool lossy; /* a full disk or a limit was in play */
	char *records;
};

static void append(struct bytes *b, const char *data, size_t len)
{
	if (b->len + len > b->cap) {
		b->cap = (b->len + len) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void log_path(const struct logmodel *m, struct text *path)
{
	text_add(path, m->dir);
	text_add(path, "/log");
}

static void rotated_path(const struct logmodel *m, unsigned n, struct text *path)
{
	log_path(m, path);
	text_add(path, ".");
	text_number(path, n);
}

struct logmodel *logmodel_new(const char *dir, uint64_t limit)
{
	struct logmodel *m = calloc(1, sizeof(*m));
	TEXT(path, 512);

	m->dir = strdup(dir);
	m->sink.fd = -1;
	m->sink.limit = limit;
	m->lossy = limit != 0;
	m->streams[0].name = "stdout";
	m->streams[1].name = "stderr";
	m->records = malloc(LOG_BUFFER);
	m->carry[0] = malloc(LOG_CHUNK);
	m->carry[1] = malloc(LOG_CHUNK);
	log_path(m, &path);
	if (log_open(&m->sink, path.buf) < 0)
		abort();
	return m;
}

static void begin(struct logmodel *m, int stream, struct log_batch *b)
{
	struct timespec now = { .tv_sec = 1700000000 + (time_t)(m->now_ms / 1000), .tv_nsec = (long)(m->now_ms % 1000) };

	b->sink = &m->sink;
	b->stream = &m->streams[stream];
	b->buf = m->records;
	b->now_ms = m->now_ms;
	log_begin(b, &m->clock, &now);
}

/* The model: byte by byte. */
static void expect_record(struct logmodel *m, int stream, char tag)
{
	append(&m->expected[stream], "\n", 1);
	append(&m->expected[stream], &tag, 1);
	m->line_len[stream] = 0;
}

static void expect(struct logmodel *m, int stream, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n') {
			expect_record(m, stream, 'F');
			continue;
		}
		append(&m->expected[stream], &data[i], 1);
		if (++m->line_len[stream] == LOG_CHUNK)
			expect_record(m, stream, 'P');
	}
}

void logmodel_feed(struct logmodel *m, int stream, const char *data, size_t len)
{
	size_t carried = m->carry_len[stream];
	char *input = malloc(carried + len + 1);
	struct log_batch b;
	size_t taken;

	memcpy(input, m->carry[stream], carried);
	memcpy(input + carried, data, len);
	append(&m->input[stream], data, len);
	expect(m, stream, data, len);
	begin(m, stream, &b);
	taken = log_lines(&b, input, carried + len);
	m->carry_len[stream] = carried + len - taken;
	if (m->carry_len[stream] >= LOG_CHUNK)
		abort();
	memcpy(m->carry[stream], input + taken, m->carry_len[stream]);
	log_flush(&b);
	m->now_ms += 7;
	free(input);
}

void logmodel_idle(struct logmodel *m, int stream)
{
	struct log_batch b;

	m->now_ms += 1000;
	if (m->carry_len[stream] == 0)
		return;
	begin(m, stream, &b);
	log_partial(&b, m->carry[stream], m->carry_len[stream]);
	log_flush(&b);
	m->carry_len[stream] = 0;
	expect_record(m, stream, 'P');
}

void logmodel_rotate(struct logmodel *m)
{
	TEXT(from, 512);
	TEXT(to, 512);

	log_path(m, &from);
	rotated_path(m, m->rotations++, &to);
	if (rename(from.buf, to.buf) < 0 || log_reopen(&m->sink) < 0)
		abort();
}

void logmodel_disk(struct logmodel *m, uint64_t room)
{
	struct rlimit limit;

	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = room ? room : limit.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	m->lossy = true;
}

static bool wrong(const char *what)
{
	fprintf(stderr, "log: %s\n", what);
	return false;
}

/* Reads one log file, checks every record's form, and adds it to actual. */
static bool read_records(const char *path, struct bytes actual[2])
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;
	bool ok = true;

	if (!f)
		return wrong("a log file is missing");
	while (ok && (len = getline(&line, &cap, f)) > 0) {
		int stream = strncmp(line + 31, "stderr", 6) == 0;
		char tag = len > LOG_PREFIX ? line[LOG_PREFIX - 2] : '?';

		if (len < LOG_PREFIX + 1 || line[len - 1] != '\n' || line[29] != 'Z' || line[30] != ' ' ||
		    (tag != 'F' && tag != 'P') || line[37] != ' ' || line[39] != ' ' || strncmp(line, "2023-11-", 8) != 0)
			ok = wrong("a record is malformed");
		else if (len - LOG_PREFIX - 1 > LOG_CHUNK)
			ok = wrong("a record is too long");
		if (ok) {
			append(&actual[stream], line + LOG_PREFIX, (size_t)len - LOG_PREFIX);
			append(&actual[stream], &tag, 1);
		}
	}
	free(line);
	fclose(f);
	return ok;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* The bytes of output in some records: what the container wrote of them. */
static uint64_t payload(const struct bytes *records)
{
	uint64_t total = 0;

	for (size_t i = 0; i < records->len; i++)
		if (records->data[i] != '\n')
			total++;
		else
			total -= records->data[++i] == 'P' ? 0 : (uint64_t)-1;
	return total;
}

static bool whole_lines(const struct bytes *output)
{
	return output->len == 0 || output->data[output->len - 1] == '\n';
}

/* A line is never glued to another one: after a P comes its rest, or an empty F. */
static bool ends_closed(const struct bytes *records)
{
	return records->len == 0 || records->data[records->len - 1] == 'F';
}

static bool check_loss(const struct logmodel *m, struct bytes actual[2])
{
	uint64_t in = m->input[0].len + m->input[1].len;
	uint64_t out = payload(&actual[0]) + payload(&actual[1]);

	/* F records that the container did not write count as a newline each:
	 * one at the end of each stream, and one for each torn line. */
	if (out + m->sink.lost < in && m->sink.limit == 0)
		return wrong("bytes are missing and not counted as lost");
	if (m->sink.lost > in)
		return wrong("more lost than written");
	return true;
}

static bool check(struct logmodel *m)
{
	struct bytes actual[2] = { 0 };
	bool ok = true;

	for (unsigned n = 0; ok && n < m->rotations; n++) {
		TEXT(path, 512);

		rotated_path(m, n, &path);
		ok = read_records(path.buf, actual);
	}
	if (ok) {
		TEXT(path, 512);

		log_path(m, &path);
		ok = read_records(path.buf, actual);
	}
	for (int s = 0; ok && s < 2; s++) {
		if (m->lossy ? m->sink.limit == 0 && m->sink.lost == 0 && !same(&actual[s], &m->expected[s]) :
			       !same(&actual[s], &m->expected[s]))
			ok = wrong("the records are not those expected");
		else if (whole_lines(&m->input[s]) && !ends_closed(&actual[s]))
			ok = wrong("a stream of whole lines does not end with F");
	}
	if (ok && m->lossy)
		ok = check_loss(m, actual);
	if (ok && !m->lossy && m->sink.lost > 0)
		ok = wrong("bytes counted as lost");
	free(actual[0].data);
	free(actual[1].data);
	return ok;
}

static void end_stream(struct logmodel *m, int stream)
{
	struct log_batch b;

	begin(m, stream, &b);
	log_end(&b, m->carry[stream], m->carry_len[stream]);
	log_flush(&b);
	if (m->line_len[stream] > 0)
		expect_record(m, stream, 'P');
}

bool logmodel_finish(struct logmodel *m)
{
	bool ok;

	end_stream(m, 0);
	end_stream(m, 1);
	ok = check(m);
	for (unsigned n = 0; n <= m->rotations; n++) {
		TEXT(path, 512);

		if (n < m->rotations)
			rotated_path(m, n, &path);
		else
			log_path(m, &path);
		unlink(path.buf);
	}
	log_close(&m->sink);
	for (int s = 0; s < 2; s++) {
		free(m->carry[s]);
		free(m->input[s].data);
		free(m->expected[s].data);
	}
	free(m->records);
	free(m->dir);
	free(m);
	return ok;
}
