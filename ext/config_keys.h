/* The table of configuration keys; shared by config*.c and their tests only.
**
** Threads: constant data. */
#ifndef MM_CONFIG_KEYS_H
#define MM_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

enum mm_key_type {
    MM_KEY_INT,     /* int64_t, in `unit`s of the key */
    MM_KEY_BOOL,    /* bool */
    MM_KEY_TEXT,    /* char *, any text */
    MM_KEY_NAME,    /* char *, a word of letters, digits, - and _ */
    MM_KEY_SUBJECT, /* char *, such words with dots between */
    MM_KEY_LIST,    /* char *, comma-separated; an array is accepted */
    MM_KEY_CHOICE,  /* an enum; `choices` in its order */
    MM_KEY_WORD,    /* char *, one of `choices` */
    MM_KEY_UNUSED,  /* accepted with a warning, without a meaning here */
};

enum mm_key_secret {
    MM_PUBLIC,
    MM_SECRET,     /* always, when not empty */
    MM_SECRET_URL, /* when it holds userinfo or a secret parameter */
};

struct mm_config_key {
    const char *path;
    enum mm_key_type type;
    size_t member;       /* offset in struct mm_config */
    int64_t min, max;    /* INT: as the user writes it */
    int64_t unit;        /* INT: member = written value times this */
    int64_t number;      /* default of INT (as written), BOOL, CHOICE */
    const char *text;    /* default of the texts; a leading + is replaced by the cluster's name */
    const char *choices; /* "a,b,c" */
    enum mm_key_secret secret;
    bool file_only; /* names a program or its file: never from SQL, never stored */
};

extern const struct mm_config_key mm_config_keys[];
extern const size_t mm_config_nkeys;

/* The key of a full path, NULL when unknown. */
const struct mm_config_key *mm_config_key_find(const char *path);
/* True when some key begins with "path.". */
bool mm_config_key_section(const char *path);
/* The known path that resembles it most. */
const char *mm_config_key_nearest(const char *path);
/* Place of a word in "a,b,c", -1 when it is none of them. */
int mm_config_choice(const char *choices, const char *word);

/* Members by key. The text getter returns "" for NULL. */
int64_t mm_config_get_int(const struct mm_config *c, const struct mm_config_key *k); /* as written; BOOL, CHOICE too */
const char *mm_config_get_text(const struct mm_config *c, const struct mm_config_key *k);
void mm_config_put_int(struct mm_config *c, const struct mm_config_key *k, int64_t v); /* as written */
int mm_config_put_text(struct mm_config *c, const struct mm_config_key *k, const char *s, size_t n, struct mm_err *err);
bool mm_config_key_is_text(const struct mm_config_key *k);
/* True when the present value must not be shown. */
bool mm_config_is_secret(const struct mm_config *c, const struct mm_config_key *k);

/* All defaults, for the cluster "marmot" in derived names; NULL with err set. */
struct mm_config *mm_config_new(struct mm_err *err);

/* Sets members from JSON text (config_json.c). `marked` NULL: what the user
** wrote. Else what mm_config_public wrote; marked[k] is set for each key whose
** secret is kept elsewhere. */
int mm_config_read_json(struct mm_config *c, const char *text, bool *marked, struct mm_err *err);
/* The same from a tree (borrowed); `file`: it came from a TOML file, which may
** name programs. */
struct json_t;
int mm_config_read_tree(struct mm_config *c, struct json_t *root, bool *marked, bool file, struct mm_err *err);
/* Sets members from a TOML file (config_file.c). */
int mm_config_read_file(struct mm_config *c, const char *path, struct mm_err *err);
/* Fills the marked secrets from <db>-marmot (config_secrets.c). */
int mm_config_load_secrets(struct mm_config *c, const bool *marked, const char *db_path, struct mm_err *err);
/* Secrets as canonical JSON, one member a key. */
int mm_config_secret_json(const struct mm_config *c, struct mm_buf *out, struct mm_err *err);

/* What depends on several keys: derived names, then checks. Adds warnings. */
int mm_config_settle(struct mm_config *c, struct mm_err *err);
int mm_config_warn(struct mm_config *c, struct mm_err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
