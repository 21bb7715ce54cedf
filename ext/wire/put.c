#include "wire/put.h"

#include <string.h>

size_t mm_put_varint_bytes(uint8_t out[MM_PUT_VARINT_MAX], uint64_t v)
{
    size_t n = 0;
    while (v > 0x7F) {
        out[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (uint8_t)v;
    return n;
}

void mm_put_varint(struct mm_buf *b, uint64_t v)
{
    uint8_t out[MM_PUT_VARINT_MAX];
    mm_buf_add(b, out, mm_put_varint_bytes(out, v));
}

void mm_put_tag(struct mm_buf *b, unsigned field, unsigned wire_type)
{
    mm_put_varint(b, (uint64_t)field << 3 | wire_type);
}

void mm_put_uint(struct mm_buf *b, unsigned field, uint64_t v)
{
    if (v != 0) {
        mm_put_tag(b, field, MM_PUT_VARINT);
        mm_put_varint(b, v);
    }
}

void mm_put_sint(struct mm_buf *b, unsigned field, int64_t v)
{
    mm_put_uint(b, field, mm_put_zigzag(v));
}

void mm_put_fixed(struct mm_buf *b, unsigned field, uint64_t v)
{
    if (v != 0) {
        mm_put_tag(b, field, MM_PUT_FIXED64);
        mm_put_raw64(b, v);
    }
}

void mm_put_bytes(struct mm_buf *b, unsigned field, const void *p, size_t n)
{
    if (n > 0) {
        mm_put_item(b, field, p, n);
    }
}

void mm_put_item(struct mm_buf *b, unsigned field, const void *p, size_t n)
{
    mm_put_tag(b, field, MM_PUT_BYTES);
    mm_put_varint(b, n);
    mm_buf_add(b, p, n);
}

size_t mm_put_room(struct mm_buf *b, unsigned field, size_t n)
{
    if (n > 0) {
        mm_put_tag(b, field, MM_PUT_BYTES);
        mm_put_varint(b, n);
    }
    size_t at = b->len;
    if (n > 0 && mm_buf_reserve(b, n) != NULL) {
        b->len += n;
    }
    return at;
}

void mm_put_raw64(struct mm_buf *b, uint64_t v)
{
    uint8_t out[8];
    for (int k = 0; k < 8; k++) {
        out[k] = (uint8_t)(v >> (8 * k));
    }
    mm_buf_add(b, out, sizeof out);
}

uint64_t mm_put_zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

size_t mm_put_begin(struct mm_buf *b, unsigned field)
{
    mm_put_tag(b, field, MM_PUT_BYTES);
    return b->len;
}

void mm_put_end(struct mm_buf *b, size_t mark)
{
    if (mm_buf_failed(b)) {
        return;
    }
    uint8_t head[MM_PUT_VARINT_MAX];
    size_t body = b->len - mark;
    size_t n = mm_put_varint_bytes(head, body);
    if (mm_buf_reserve(b, n) == NULL) {
        return;
    }
    memmove(b->data + mark + n, b->data + mark, body);
    memcpy(b->data + mark, head, n);
    b->len += n;
}
