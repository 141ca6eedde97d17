#include "log.h"

#include "sys.h"
#include "logfile.h"

/* Where in a record its F or P stands. */
#define TAG_AT (LOG_PREFIX - 2)

static void put_digits(char *at, unsigned digits, unsigned long number)
{
	while (digits-- > 0) {
		at[digits] = (char)('0' + number % 10);
		number /= 10;
	}
}

/* Writes YYYY-MM-DDTHH:MM:SS. gmtime would read time zone files. */
static void format_date(char *at, time_t second)
{
	/* Days since 0000-03-01, so that a leap day ends its year. */
	long days = second / 86400 + 719468;
	long rest = second % 86400;
	long era = days / 146097;
	long day = days - era * 146097;
	long year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	long month;

	day -= 365 * year + year / 4 - year / 100;
	month = (5 * day + 2) / 153;
	day -= (153 * month + 2) / 5;
	year += era * 400 + (month >= 10);
	month = month < 10 ? month + 3 : month - 9;
	memcpy(at, "0000-00-00T00:00:00", 19);
	put_digits(at, 4, (unsigned long)year);
	put_digits(at + 5, 2, (unsigned long)month);
	put_digits(at + 8, 2, (unsigned long)day + 1);
	put_digits(at + 11, 2, (unsigned long)rest / 3600);
	put_digits(at + 14, 2, (unsigned long)rest / 60 % 60);
	put_digits(at + 17, 2, (unsigned long)rest % 60);
}

void log_begin(struct log_batch *b, struct log_time *clock, const struct timespec *now)
{
	char *p = b->prefix;

	if (clock->second != now->tv_sec || clock->date[0] == '\0') {
		clock->second = now->tv_sec;
		format_date(clock->date, now->tv_sec);
	}
	memcpy(p, clock->date, 19);
	p[19] = '.';
	put_digits(p + 20, 9, (unsigned long)now->tv_nsec);
	memcpy(p + 29, "Z ", 2);
	memcpy(p + 31, b->stream->name, 6);
	memcpy(p + 37, " F ", 3);
	b->len = 0;
	b->last = 0;
	b->closers = 0;
	b->force = false;
	b->tap = NULL;
}

/* The bytes of output in whole records; an F record stands for its newline too. */
static uint64_t payload(const char *records, size_t len)
{
	uint64_t total = 0;

	while (len > 0) {
		const char *end = (const char *)memchr(records, '\n', len) + 1;
		size_t size = (size_t)(end - records);

		total += size - LOG_PREFIX - (records[TAG_AT] == 'P');
		records = end;
		len -= size;
	}
	return total;
}

/* Accounts for a batch of which only the first kept bytes reached the file. */
static void drop(struct log_batch *b, size_t kept)
{
	uint64_t lost = payload(b->buf + kept, b->len - kept);

	if (kept == 0)
		lost -= b->closers;
	else
		b->stream->open_on_disk = b->buf[logfile_last(b->buf, kept) + TAG_AT] == 'P';
	b->sink->lost += lost;
	b->stream->torn = b->stream->open_on_disk;
}

void log_flush(struct log_batch *b)
{
	size_t kept = 0, closers = b->closers * (LOG_PREFIX + 1u);
	bool tried = b->now_ms >= b->sink->retry_at || b->force;

	if (b->len == 0)
		return;
	if (b->tap && b->len > closers)
		b->tap(b, b->buf + closers, b->len - closers);
	if (b->sink->fd < 0)
		kept = b->len;
	else if (tried)
		kept = logfile_write(b->sink, b->buf, b->len);
	if (kept < b->len) {
		drop(b, kept);
		if (tried) /* who never stops writing must not put it off for ever */
			b->sink->retry_at = b->now_ms + LOG_RETRY_MS;
	} else {
		b->sink->retry_at = 0;
		b->stream->torn = false;
		b->stream->open_on_disk = b->buf[b->last + TAG_AT] == 'P';
	}
	b->len = 0;
	b->closers = 0;
}

static void put_record(struct log_batch *b, char tag, const char *data, size_t len)
{
	char *at = b->buf + b->len;

	memcpy(at, b->prefix, LOG_PREFIX);
	at[TAG_AT] = tag;
	memcpy(at + LOG_PREFIX, data, len);
	at[LOG_PREFIX + len] = '\n';
	b->last = b->len;
	b->len += LOG_PREFIX + len + 1;
}

static void add_record(struct log_batch *b, char tag, const char *data, size_t len)
{
	if (b->len + LOG_PREFIX + len + 1 > LOG_BUFFER)
		log_flush(b);
	if (b->len == 0 && b->stream->torn) {
		put_record(b, 'F', "", 0);
		b->closers = 1;
	}
	put_record(b, tag, data, len);
	b->stream->open = tag == 'P';
}

size_t log_lines(struct log_batch *b, const char *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		size_t window = smaller(len - at, LOG_CHUNK);
		const char *newline = memchr(data + at, '\n', window);

		if (newline) {
			window = (size_t)(newline - (data + at));
			add_record(b, 'F', data + at, window);
			at += window + 1;
		} else if (window == LOG_CHUNK) {
			add_record(b, 'P', data + at, window);
			at += window;
		} else {
			break;
		}
	}
	return at;
}

void log_partial(struct log_batch *b, const char *data, size_t len)
{
	if (len > 0)
		add_record(b, 'P', data, len);
}

void log_end(struct log_batch *b, const char *data, size_t len)
{
	b->force = true;
	if (len > 0) {
		add_record(b, 'P', data, len);
	} else if (b->stream->torn && b->len == 0) {
		put_record(b, 'F', "", 0);
		b->closers = 1;
		b->stream->open = false;
	}
}
