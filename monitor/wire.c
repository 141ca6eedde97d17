#include "wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "protocol.h"

bool wire_open(struct wire_reader *r, const void *buf, size_t len, struct wire_header *header)
{
	const uint8_t *at = buf;
	uint16_t version, type;
	uint64_t id;

	if (len < GM_HEADER_SIZE)
		return false;
	memcpy(&version, at, 2);
	memcpy(&type, at + 2, 2);
	memcpy(&id, at + 8, 8);
	header->version = le16toh(version);
	header->type = le16toh(type);
	header->id = le64toh(id);
	r->at = at + GM_HEADER_SIZE;
	r->end = at + len;
	return true;
}

struct wire_reader wire_nested(const struct wire_field *f)
{
	return (struct wire_reader){ .at = f->data, .end = f->data + f->len };
}

int wire_next(struct wire_reader *r, struct wire_field *f)
{
	size_t left = (size_t)(r->end - r->at);
	uint16_t tag, len;

	if (left == 0)
		return 0;
	if (left < GM_FIELD_SIZE)
		return -EBADMSG;
	memcpy(&tag, r->at, 2);
	memcpy(&len, r->at + 2, 2);
	f->tag = le16toh(tag);
	f->len = le16toh(len);
	if (f->len > left - GM_FIELD_SIZE)
		return -EBADMSG;
	f->data = r->at + GM_FIELD_SIZE;
	r->at = f->data + f->len;
	return 1;
}

int wire_u32(const struct wire_field *f, uint32_t *value)
{
	uint32_t raw;

	if (f->len != sizeof(raw))
		return -EBADMSG;
	memcpy(&raw, f->data, sizeof(raw));
	*value = le32toh(raw);
	return 0;
}

int wire_u64(const struct wire_field *f, uint64_t *value)
{
	uint64_t raw;

	if (f->len != sizeof(raw))
		return -EBADMSG;
	memcpy(&raw, f->data, sizeof(raw));
	*value = le64toh(raw);
	return 0;
}

int wire_string(const struct wire_field *f, const char **value)
{
	if (f->len == 0 || memchr(f->data, '\0', f->len) != f->data + f->len - 1)
		return -EBADMSG;
	*value = (const char *)f->data;
	return 0;
}

int wire_unknown(const struct wire_field *f)
{
	return f->tag & GM_TAG_CRITICAL ? -ENOTSUP : 0;
}

/* Adds raw bytes, or marks the message as full. */
static void put(struct wire_writer *w, const void *data, size_t len)
{
	if (w->full || len > w->cap - w->len) {
		w->full = true;
		return;
	}
	if (len > 0)
		memcpy(w->buf + w->len, data, len);
	w->len += len;
}

static void put_u16(struct wire_writer *w, uint16_t value)
{
	uint16_t raw = htole16(value);

	put(w, &raw, sizeof(raw));
}

void wire_begin(struct wire_writer *w, uint16_t type, uint64_t id)
{
	uint32_t reserved = 0;
	uint64_t raw = htole64(id);

	w->len = 0;
	w->full = false;
	put_u16(w, GM_VERSION);
	put_u16(w, type);
	put(w, &reserved, sizeof(reserved));
	put(w, &raw, sizeof(raw));
}

void wire_put_bytes(struct wire_writer *w, uint16_t tag, const void *data, size_t len)
{
	if (len > UINT16_MAX) {
		w->full = true;
		return;
	}
	put_u16(w, tag);
	put_u16(w, (uint16_t)len);
	put(w, data, len);
}

void wire_put_u32(struct wire_writer *w, uint16_t tag, uint32_t value)
{
	uint32_t raw = htole32(value);

	wire_put_bytes(w, tag, &raw, sizeof(raw));
}

void wire_put_u64(struct wire_writer *w, uint16_t tag, uint64_t value)
{
	uint64_t raw = htole64(value);

	wire_put_bytes(w, tag, &raw, sizeof(raw));
}

void wire_put_string(struct wire_writer *w, uint16_t tag, const char *value)
{
	wire_put_bytes(w, tag, value, strlen(value) + 1);
}

size_t wire_enter(struct wire_writer *w, uint16_t tag)
{
	put_u16(w, tag);
	put_u16(w, 0);
	return w->len;
}

void wire_leave(struct wire_writer *w, size_t mark)
{
	uint16_t raw;

	if (w->full)
		return;
	if (w->len - mark > UINT16_MAX) {
		w->full = true;
		return;
	}
	raw = htole16((uint16_t)(w->len - mark));
	memcpy(w->buf + mark - 2, &raw, sizeof(raw));
}
