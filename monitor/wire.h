/* Encoding and decoding of messages; see protocol.h. Nothing here does I/O. */
#ifndef GANTRY_WIRE_H
#define GANTRY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_header {
	uint16_t version;
	uint16_t type;
	uint64_t id;
};

struct wire_field {
	uint16_t tag;
	uint16_t len;
	const uint8_t *data;
};

struct wire_reader {
	const uint8_t *at;
	const uint8_t *end;
};

/* Reads the header and leaves r at the first field; false if buf is too short for one. */
bool wire_open(struct wire_reader *r, const void *buf, size_t len, struct wire_header *header);

/* A reader of the fields nested in f. */
struct wire_reader wire_nested(const struct wire_field *f);

/* Reads the next field: 1, 0 at the end, or -EBADMSG when the rest is not a whole field. */
int wire_next(struct wire_reader *r, struct wire_field *f);

/* Values of fields: 0 or -EBADMSG. A string points into the message. */
int wire_u32(const struct wire_field *f, uint32_t *value);
int wire_u64(const struct wire_field *f, uint64_t *value);
int wire_string(const struct wire_field *f, const char **value);

/* What to do about a field nobody knows: 0 to skip it, -ENOTSUP if it is critical. */
int wire_unknown(const struct wire_field *f);

struct wire_writer {
	uint8_t *buf;
	size_t cap;
	size_t len;
	bool full; /* something did not fit: the message must not be sent */
};

void wire_begin(struct wire_writer *w, uint16_t type, uint64_t id);
void wire_put_bytes(struct wire_writer *w, uint16_t tag, const void *data, size_t len);
void wire_put_u32(struct wire_writer *w, uint16_t tag, uint32_t value);
void wire_put_u64(struct wire_writer *w, uint16_t tag, uint64_t value);
void wire_put_string(struct wire_writer *w, uint16_t tag, const char *value);
/* Opens a nested field and returns the mark that wire_leave takes to close it. */
size_t wire_enter(struct wire_writer *w, uint16_t tag);
void wire_leave(struct wire_writer *w, size_t mark);

#endif
