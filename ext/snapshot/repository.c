#include "snapshot/repository.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sqlite.h"
#include "wire/file.h"

#define META ".json"
#define DATA ".db.zst"

static struct mm_store_watch watch(struct mm_repository *r)
{
    return (struct mm_store_watch){ mm_work_moved, r->work };
}

static bool ends_with(const char *name, const char *end, size_t *stem)
{
    size_t n = strlen(name);
    size_t e = strlen(end);
    *stem = n - (n < e ? n : e);
    return n > e && strcmp(name + n - e, end) == 0;
}

static bool read_manifest(struct mm_repository *r, const char *name, struct mm_manifest *m, struct mm_err *bad,
                          struct mm_err *err)
{
    struct mm_store_watch w = watch(r);
    uint8_t *data = NULL;
    size_t len = 0;
    size_t stem = 0;
    struct mm_err one;
    mm_err_init(&one);
    if (!mm_store_get_bytes(r->store, name, MM_MANIFEST_MAX, &data, &len, &w, err)) {
        return false;
    }
    mm_manifest_read(m, data, len, &one);
    free(data);
    if (one.rc == SQLITE_OK && (!ends_with(name, META, &stem) || strlen(m->id) != stem ||
                                strncmp(m->id, name, stem) != 0 || strcmp(m->cluster_id, r->cluster_id) != 0)) {
        mm_err_set(&one, SQLITE_CORRUPT, "it is the manifest of another snapshot (%s)", m->id);
    }
    if (one.rc != SQLITE_OK) {
        mm_err_prefix(&one, "snapshot %.100s", name);
        mm_log(MM_LOG_WARN, "%s", one.msg);
        if (bad != NULL && bad->rc == SQLITE_OK) {
            *bad = one;
        }
    }
    return one.rc == SQLITE_OK;
}

int mm_repository_newest(struct mm_repository *r, struct mm_manifest list[MM_SNAPSHOTS_KEPT], struct mm_err *bad,
                         struct mm_err *err)
{
    struct mm_store_list all = { 0 };
    struct mm_store_watch w = watch(r);
    int n = 0;
    mm_work_step(r->work, "looking for snapshots", 0);
    mm_store_list(r->store, r->cluster_id, &all, &w, err);
    for (size_t k = all.count; k-- > 0 && n < MM_SNAPSHOTS_KEPT && err->rc == SQLITE_OK;) {
        size_t stem;
        if (ends_with(all.objects[k].name, META, &stem) && read_manifest(r, all.objects[k].name, &list[n], bad, err)) {
            n++;
        }
    }
    mm_store_list_free(&all);
    return err->rc == SQLITE_OK ? n : 0;
}

/* Whatever is older than the oldest of those kept, data without a manifest too;
** manifests first, so that none is left without its data. */
static void remove_old(struct mm_repository *r, struct mm_err *err)
{
    struct mm_manifest kept[MM_SNAPSHOTS_KEPT];
    struct mm_store_list all = { 0 };
    struct mm_store_watch w = watch(r);
    int n = mm_repository_newest(r, kept, NULL, err);
    if (n < MM_SNAPSHOTS_KEPT) {
        return;
    }
    mm_store_list(r->store, r->cluster_id, &all, &w, err);
    static const char *const ends[] = { META, DATA };
    for (size_t e = 0; e < 2; e++) {
        for (size_t k = 0; k < all.count && err->rc == SQLITE_OK; k++) {
            size_t stem;
            const char *name = all.objects[k].name;
            if (ends_with(name, ends[e], &stem) && strncmp(name, kept[n - 1].id, stem) < 0) {
                mm_store_remove(r->store, name, &w, err);
            }
        }
    }
    mm_store_list_free(&all);
    mm_store_sweep(r->store, &w, err);
}

static int64_t file_size(int fd, struct mm_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        mm_err_set(err, SQLITE_IOERR, "a snapshot's file beside the database cannot be read");
        return 0;
    }
    return st.st_size;
}

static int not_behind(struct mm_repository *r, const struct mm_manifest *m, int64_t *generation, struct mm_err *err)
{
    struct mm_manifest newest[MM_SNAPSHOTS_KEPT];
    int n = mm_repository_newest(r, newest, NULL, err);
    if (n > 0 && !mm_manifest_reaches(m, &newest[0])) {
        mm_err_set(err, SQLITE_ERROR,
                   "snapshot %s of node %lld is newer in some shard than what this node has read of the log: try again "
                   "when it has caught up",
                   newest[0].id, (long long)newest[0].node);
    }
    *generation = n > 0 ? newest[0].generation : 0;
    return err->rc;
}

int mm_repository_put(struct mm_repository *r, struct mm_manifest *m, int raw, int packed, struct mm_err *err)
{
    struct mm_wire_file f = { .go_on = mm_work_done, .arg = r->work };
    struct mm_store_watch w = watch(r);
    struct mm_buf text;
    int64_t generation = 0;
    char meta[128];
    char data[128];
    mm_buf_init(&text, MM_MANIFEST_MAX);
    not_behind(r, m, &generation, err);
    m->generation = generation + 1;
    mm_manifest_name(m);
    mm_manifest_objects(m->id, meta, data);
    mm_work_step(r->work, "packing the snapshot", file_size(raw, err));
    if (err->rc == SQLITE_OK && mm_wire_file_pack(raw, packed, &f, err) == SQLITE_OK) {
        m->raw = f.raw;
        m->size = f.packed;
        memcpy(m->sha256, f.sha256, sizeof m->sha256);
        mm_work_step(r->work, "storing the snapshot", m->size);
        mm_store_put(r->store, data, packed, m->size, &w, err);
    }
    if (err->rc == SQLITE_OK) {
        not_behind(r, m, &generation, err); /* another node's may have come meanwhile */
        if (err->rc == SQLITE_OK && mm_manifest_write(m, &text, err) == SQLITE_OK) {
            mm_store_put_bytes(r->store, meta, text.data, text.len, &w, err);
        }
        struct mm_err none;
        mm_err_init(&none);
        if (err->rc == SQLITE_OK) {
            remove_old(r, &none);
        } else {
            mm_store_remove(r->store, data, NULL, &none);
        }
        if (none.rc != SQLITE_OK) {
            mm_log(MM_LOG_WARN, "an old snapshot could not be removed: %s", none.msg);
        }
    }
    mm_buf_free(&text);
    return err->rc;
}

int mm_repository_get(struct mm_repository *r, const struct mm_manifest *m, int raw, int packed, struct mm_err *err)
{
    struct mm_wire_file f = { .raw = m->raw, .packed = m->size, .go_on = mm_work_done, .arg = r->work };
    struct mm_store_watch w = watch(r);
    char meta[128];
    char data[128];
    memcpy(f.sha256, m->sha256, sizeof f.sha256);
    mm_manifest_objects(m->id, meta, data);
    mm_work_step(r->work, "fetching the snapshot", m->size);
    if (!mm_store_get(r->store, data, packed, m->size, &w, err) || err->rc != SQLITE_OK) {
        return mm_err_set(err, SQLITE_CORRUPT, "snapshot %s has a manifest and no data", m->id);
    }
    if (file_size(packed, err) != m->size) {
        mm_err_set(err, SQLITE_CORRUPT, "the data of snapshot %s is not as long as its manifest says", m->id);
    }
    mm_work_step(r->work, "unpacking the snapshot", m->raw);
    if (err->rc == SQLITE_OK && lseek(packed, 0, SEEK_SET) == 0) {
        mm_wire_file_unpack(packed, raw, &f, err);
        mm_err_prefix(err, "snapshot %s", m->id);
    }
    return err->rc;
}
