/* The public key of a NATS user seed. The client library signs with the seed
** but wants to be told the public key; Ed25519 is borrowed from libcrypto,
** which libnats has loaded for TLS. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "bus/inner.h"

#define SEED_CHARS 58 /* base32 of 2 prefix bytes, 32 of the seed, 2 of CRC */
#define SEED_BYTES 36
#define PREFIX_USER (20 << 3) /* 'U' */
#define ED25519_ID 1087       /* NID_ED25519: part of OpenSSL's stable interface */

struct crypto {
    void *(*from_seed)(int type, void *engine, const unsigned char *key, size_t len);
    int (*raw_public)(const void *key, unsigned char *out, size_t *len);
    void (*release)(void *key);
};

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

static void wipe(void *p, size_t n)
{
    volatile unsigned char *v = p;
    while (n-- > 0) {
        *v++ = 0;
    }
}

static bool decode(const char *text, size_t chars, unsigned char *out)
{
    unsigned bits = 0;
    int held = 0;
    for (size_t i = 0; i < chars; i++) {
        const char *at = strchr(alphabet, text[i]);
        if (at == NULL || *at == '\0') {
            return false;
        }
        bits = (bits << 5 | (unsigned)(at - alphabet)) & 0xfff;
        held += 5;
        if (held >= 8) {
            held -= 8;
            *out++ = (unsigned char)(bits >> held);
        }
    }
    return true;
}

static void encode(const unsigned char *in, size_t len, char *out)
{
    unsigned bits = 0;
    int held = 0;
    for (size_t i = 0; i < len; i++) {
        bits = (bits << 8 | in[i]) & 0xffff;
        held += 8;
        while (held >= 5) {
            held -= 5;
            *out++ = alphabet[bits >> held & 31];
        }
    }
    if (held > 0) {
        *out++ = alphabet[bits << (5 - held) & 31];
    }
    *out = '\0';
}

/* CRC-16 as XMODEM has it, in little-endian behind the bytes. */
static unsigned crc16(const unsigned char *p, size_t n)
{
    unsigned crc = 0;
    for (size_t i = 0; i < n; i++) {
        crc ^= (unsigned)p[i] << 8;
        for (int k = 0; k < 8; k++) {
            crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1 & 0xffff;
        }
    }
    return crc;
}

/* The seed may stand alone or between the decorations of a creds file. */
static const char *find_seed(const char *text)
{
    for (const char *p = strstr(text, "SU"); p != NULL; p = strstr(p + 1, "SU")) {
        bool starts = p == text || strchr(" \t\r\n", p[-1]) != NULL;
        if (starts && strspn(p, alphabet) == SEED_CHARS) {
            return p;
        }
    }
    return NULL;
}

static int read_seed(const char *path, unsigned char raw[SEED_BYTES], struct mm_err *err)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (n < 0) {
        mm_err_set(err, SQLITE_CANTOPEN, "nats.seed_file %s cannot be read: %s", path, strerror(errno));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (n < 0) {
        return err->rc;
    }
    text[n] = '\0';
    const char *seed = find_seed(text);
    bool fine = seed != NULL && decode(seed, SEED_CHARS, raw) && (raw[0] & 0xf8) == (18 << 3) &&
                ((raw[0] & 7) << 5 | raw[1] >> 3) == PREFIX_USER &&
                crc16(raw, SEED_BYTES - 2) == ((unsigned)raw[SEED_BYTES - 1] << 8 | raw[SEED_BYTES - 2]);
    wipe(text, sizeof text);
    if (!fine) {
        return mm_err_set(err, SQLITE_CANTOPEN,
                          "nats.seed_file %s holds no user seed: it must contain a key that begins with SU, "
                          "as nk -gen user prints it",
                          path);
    }
    return SQLITE_OK;
}

static bool find_crypto(const struct mm_nats_api *api, struct crypto *c)
{
    static const char *const symbols[] = { "EVP_PKEY_new_raw_private_key", "EVP_PKEY_get_raw_public_key",
                                           "EVP_PKEY_free" };
    void *found[3];
    for (int i = 0; i < 3; i++) {
        found[i] = mm_nats_symbol(api, symbols[i]);
        if (found[i] == NULL) {
            return false;
        }
    }
    memcpy(&c->from_seed, &found[0], sizeof found[0]);
    memcpy(&c->raw_public, &found[1], sizeof found[1]);
    memcpy(&c->release, &found[2], sizeof found[2]);
    return true;
}

int mm_nkey_public(const struct mm_nats_api *api, const char *seed_file, char out[57], struct mm_err *err)
{
    unsigned char raw[SEED_BYTES];
    unsigned char bytes[35] = { PREFIX_USER };
    struct crypto c;
    size_t len = 32;
    if (read_seed(seed_file, raw, err) != SQLITE_OK) {
        return err->rc;
    }
    if (!find_crypto(api, &c)) {
        mm_err_set(err, SQLITE_CANTOPEN,
                   "nats.seed_file needs a NATS client library built with TLS (package libnats3.4)");
    } else {
        void *key = c.from_seed(ED25519_ID, NULL, raw + 2, 32);
        if (key == NULL || c.raw_public(key, bytes + 1, &len) != 1 || len != 32) {
            mm_err_set(err, SQLITE_CANTOPEN, "no public key follows from nats.seed_file %s", seed_file);
        }
        c.release(key);
    }
    wipe(raw, sizeof raw);
    unsigned crc = crc16(bytes, 33);
    bytes[33] = (unsigned char)(crc & 0xff);
    bytes[34] = (unsigned char)(crc >> 8);
    encode(bytes, sizeof bytes, out);
    return err->rc;
}
