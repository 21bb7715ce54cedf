/* Any text as configuration. What is accepted must survive being stored. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stored(const struct mm_config *c)
{
    struct mm_buf b;
    struct mm_err err;
    mm_buf_init(&b, 1 << 24);
    mm_err_init(&err);
    mm_config_public(c, &b, &err);
    char *text = mm_buf_take(&b);
    if (text == NULL) {
        abort();
    }
    if (!mm_config_has_secrets(c)) {
        struct mm_config *back = mm_config_restore(text, "/nonexistent/app.db", &err);
        if (back == NULL || !mm_config_equal(c, back)) {
            abort();
        }
        mm_config_free(back);
    }
    free(text);
    mm_buf_init(&b, 1 << 24);
    mm_config_cluster_settings(c, &b, &err);
    mm_config_redact(c->nats.urls, &b);
    if (err.rc != 0) {
        abort();
    }
    mm_buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mm_err err;
    mm_err_init(&err);
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    struct mm_config *c = mm_config_parse(text, &err);
    if (c != NULL) {
        stored(c);
    } else if (err.rc == 0 || err.msg[0] == '\0') {
        abort();
    }
    mm_config_free(c);
    free(text);
    return 0;
}
