/* Any bytes as TOML: a tree or a message with a place, and the tree then as
** configuration. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config_keys.h"
#include "config_toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mm_err err;
    mm_err_init(&err);
    char *exact = malloc(size > 0 ? size : 1); /* one byte too far is found */
    if (exact == NULL) {
        return 0;
    }
    memcpy(exact, data, size);
    json_t *root = mm_toml_parse(exact, size, &err);
    if (root == NULL && (err.rc == 0 || strncmp(err.msg, "line ", 5) != 0)) {
        abort();
    }
    struct mm_config *c = root != NULL ? mm_config_new(&err) : NULL;
    if (c != NULL && mm_config_read_tree(c, root, NULL, true, &err) == 0) {
        mm_config_settle(c, &err);
    }
    if (root != NULL && err.rc != 0 && err.msg[0] == '\0') {
        abort();
    }
    mm_config_free(c);
    json_decref(root);
    free(exact);
    return 0;
}
