#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum { BLOCK = 0, ALIGN = 1 }; /* each allocation has its own block: the sanitizer sees what reads beyond it */
#else
enum { BLOCK = 8192, ALIGN = 16 };
#endif

struct mm_arena_block {
    struct mm_arena_block *next;
    size_t len;
    size_t cap;
    alignas(16) unsigned char data[];
};

void mm_arena_init(struct mm_arena *a, size_t max)
{
    memset(a, 0, sizeof *a);
    a->max = max;
}

void mm_arena_free(struct mm_arena *a)
{
    struct mm_arena_block *b = a->head;
    while (b != NULL) {
        struct mm_arena_block *next = b->next;
        free(b);
        b = next;
    }
    mm_arena_init(a, a->max);
}

void *mm_arena_alloc(struct mm_arena *a, size_t n)
{
    if (a->failed || n > a->max || a->used > a->max - n) {
        a->failed = true;
        return NULL;
    }
    size_t size = (n + ALIGN - 1) / ALIGN * ALIGN;
    struct mm_arena_block *b = a->head;
    if (b == NULL || size > b->cap - b->len) {
        size_t cap = size > BLOCK ? size : BLOCK;
        struct mm_arena_block *fresh = malloc(sizeof *fresh + cap);
        if (fresh == NULL) {
            a->failed = true;
            return NULL;
        }
        fresh->len = 0;
        fresh->cap = cap;
        if (b != NULL && size > BLOCK) { /* a large one goes behind: the head keeps its room */
            fresh->next = b->next;
            b->next = fresh;
        } else {
            fresh->next = b;
            a->head = fresh;
        }
        b = fresh;
    }
    void *p = b->data + b->len;
    b->len += size;
    a->used += n;
    memset(p, 0, n);
    return p;
}

void *mm_arena_array(struct mm_arena *a, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size) {
        a->failed = true;
        return NULL;
    }
    return mm_arena_alloc(a, count * size);
}

void *mm_arena_copy(struct mm_arena *a, const void *p, size_t n)
{
    void *to = mm_arena_alloc(a, n);
    if (to != NULL && n > 0) {
        memcpy(to, p, n);
    }
    return to;
}

char *mm_arena_str(struct mm_arena *a, const char *s)
{
    return mm_arena_copy(a, s, strlen(s) + 1);
}
