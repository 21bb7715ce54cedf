/* What the TOML reader makes of a text, and where it says no; then whole files
** as marmot_init reads them. With a path: prints that file as JSON.
** marmot-test: parallel */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "config_keys.h"
#include "config_toml.h"
#include "test/lib/message.h"

static void reads(const char *name, const char *toml, const char *json)
{
    struct mm_err err;
    mm_err_init(&err);
    json_t *got = mm_toml_parse(toml, strlen(toml), &err);
    json_t *want = json_loads(json, 0, NULL);
    char *text = got != NULL ? json_dumps(got, JSON_COMPACT) : NULL;
    check(got != NULL && want != NULL && json_equal(got, want), name, "%s %s", err.msg, text != NULL ? text : "");
    free(text);
    json_decref(got);
    json_decref(want);
}

static void refuses(const char *name, const char *toml, const char *part)
{
    struct mm_err err;
    mm_err_init(&err);
    json_t *got = mm_toml_parse(toml, strlen(toml), &err);
    check(got == NULL && err.rc != 0 && strstr(err.msg, part) != NULL, name, "rc %d: %s", err.rc, err.msg);
    json_decref(got);
}

static void values(void)
{
    reads("nothing", "", "{}");
    reads("comments and blank lines", "# one\n\n\t # two\r\n", "{}");
    reads("an editor's mark",
          "\xEF\xBB\xBF"
          "a=1",
          "{\"a\":1}");
    reads("whole numbers", "a = 0\nb = -17\nc = +1_000\nd = 0xDEAD_beef\ne = 0o17\nf = 0b1010\ng=-0",
          "{\"a\":0,\"b\":-17,\"c\":1000,\"d\":3735928559,\"e\":15,\"f\":10,\"g\":0}");
    reads("the ends of 64 bits", "a=9223372036854775807\nb=-9223372036854775808",
          "{\"a\":9223372036854775807,\"b\":-9223372036854775808}");
    reads("truth", "a=true\nb = false # not", "{\"a\":true,\"b\":false}");
    reads("numbers with a fraction are such", "a=[1.5, -0.0, 6.02e+23, 1E-9, 1_0.2_5]",
          "{\"a\":[0.5,0.5,0.5,0.5,0.5]}");
    reads("plain texts", "a=\"\"\nb=\"q\\\"\\\\\\t\\u00e9\\U0001F600\"\nc='C:\\new'",
          "{\"a\":\"\",\"b\":\"q\\\"\\\\\\t\\u00e9\\ud83d\\ude00\",\"c\":\"C:\\\\new\"}");
    reads("texts of several lines", "a=\"\"\"\none\\\n   \n  two\r\nthree\"\"\"\nb='''\n'x'\\n'''''\nc=\"\"\"\"\"\"",
          "{\"a\":\"onetwo\\r\\nthree\",\"b\":\"'x'\\\\n''\",\"c\":\"\"}");
    reads("UTF-8", "a=\"Zoë ☃ 𝄞\"", "{\"a\":\"Zoë ☃ 𝄞\"}");
    reads("arrays", "a=[]\nb=[ 1, [\"x\"], # one\n  'y' ,\n]", "{\"a\":[],\"b\":[1,[\"x\"],\"y\"]}");
    reads("tables in a line", "a={}\nb = { c.d = 1, 'e' = { f = [ {} ] } }",
          "{\"a\":{},\"b\":{\"c\":{\"d\":1},\"e\":{\"f\":[{}]}}}");
}

static void tables(void)
{
    reads("tables", "x=1\n[a]\ny=2\n[a.b]\nz=3\n[ c . \"d e\" . 'f' ] # here\n",
          "{\"x\":1,\"a\":{\"y\":2,\"b\":{\"z\":3}},\"c\":{\"d e\":{\"f\":{}}}}");
    reads("a table behind its own part", "[a.b]\nx=1\n[a]\ny=2", "{\"a\":{\"b\":{\"x\":1},\"y\":2}}");
    reads("dotted keys", "a.b.c=1\na . b . d = 2\n\"a\".e=3\n1.2=4",
          "{\"a\":{\"b\":{\"c\":1,\"d\":2},\"e\":3},\"1\":{\"2\":4}}");
    reads("a table below dotted keys", "[f]\na.b=1\n[f.a.c]\nd=2", "{\"f\":{\"a\":{\"b\":1,\"c\":{\"d\":2}}}}");
    refuses("a key twice", "a=1\nb=2\na=3", "line 3, column 1: key a is given twice");
    refuses("a key twice, the other way round", "a.b=1\n a.b=2", "line 2, column 4: key b is given twice");
    refuses("a table twice", "[a]\n[b]\n[a]", "line 3, column 1: table a is given twice");
    refuses("a table that dotted keys made", "[f]\na.b=1\n[f.a]", "line 3, column 1: table a is given twice");
    refuses("a table that is a value", "a=1\n[a]", "line 2, column 1: a has a value already");
    refuses("a table below a value", "a=1\n[a.b]", "a has a value already");
    refuses("a dotted key below a value", "a=1\na.b=2", "a has a value already");
    refuses("a dotted key below a list", "a=[1]\na.b=2", "a has a value already");
    refuses("dotted keys into a table with a header", "[a.b]\nc=1\n[a]\nb.d=2",
            "line 4, column 1: table b is given elsewhere");
    refuses("more of a table in a line", "a={b=1}\na.c=2", "cannot be added to");
    refuses("more of it by a header", "a={b={}}\n[a.b.c]", "cannot be added to");
    refuses("a list of tables", "[[a]]", "line 1, column 1: lists of tables");
}

static void mistakes(void)
{
    refuses("a long run of bytes that begin no character",
            "a = \"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\"",
            "line 1, column 6: the text is not UTF-8");
    refuses("no equals sign", "a 1", "line 1, column 3: = is expected");
    refuses("no key", "\n  = 1", "line 2, column 3: a key is expected");
    refuses("no value", "a =", "line 1, column 4: a value is expected");
    refuses("no value in its line", "a = # 1\n", "column 5: a value is expected");
    refuses("a word without quotes", "a = marmot", "line 1, column 5: a value is expected");
    refuses("two in a line", "a=1 b=2", "line 1, column 5: a line end is expected");
    refuses("more behind a table", "[a] b=1", "column 5: a line end");
    refuses("a header that is not closed", "[a\nb=1", "line 1, column 3: ] is expected");
    refuses("a text that is not closed", "a=\"secret\nb=1", "line 1, column 3: the text that begins here");
    refuses("a long text that is not closed", "a='''\nx\n", "line 1, column 3: the text that begins here");
    refuses("an unknown escape", "a=\"\\x41\"", "column 5: this escape");
    refuses("an escaped half", "a=\"\\uD800\"", "no character has this number");
    refuses("an escaped NUL", "a=\"\\u0000\"", "NUL");
    refuses("an escape that ends", "a=\"\\u12\"", "4 hexadecimal digits");
    refuses("a control character", "a=\"\x01\"", "control character");
    refuses("a control character as the last of a list", "as = [ '''\x1C", "control character");
    refuses("a control character in a comment", "# \x01", "control character");
    refuses("a return alone", "a=1\rb=2", "line end is expected");
    refuses("not UTF-8", "a=1\nb='\xFF'", "line 2, column 4: the text is not UTF-8");
    refuses("overlong UTF-8", "b='\xC0\x80'", "not UTF-8");
    refuses("leading zeros", "a=007", "a value is expected");
    refuses("two underscores", "a=1__0", "a value is expected");
    refuses("an underscore at the end", "a=1_", "a value is expected");
    refuses("a fraction without digits", "a=1.", "malformed");
    refuses("an exponent without digits", "a=1e", "malformed");
    refuses("a number too large", "a=9223372036854775808", "too large for 64 bits");
    refuses("a date", "a=2024-01-01", "dates and times");
    refuses("a time", "a=07:32:00", "dates and times");
    refuses("infinity", "a=-inf", "inf and nan");
    refuses("an array that is not closed", "a=[1,\n2", "line 2, column 2: , or ] is expected");
    refuses("an array without a comma", "a=[1 2]", ", or ] is expected");
    refuses("a table in a line with a comma behind", "a={b=1,}", "a key is expected");
    refuses("a table in a line over two", "a={b=1,\nc=2}", "a key is expected");
    refuses("a long text as key", "\"\"\"a\"\"\"=1", "a text of several lines");
    char deep[200];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    memcpy(deep, "a=", 2);
    refuses("endless nesting", deep, "nested deeper than 32");
    struct mm_err err;
    mm_err_init(&err);
    json_t *none = mm_toml_parse("a='hunter2' 'hunter2'", 21, &err);
    check(none == NULL && strstr(err.msg, "hunter2") == NULL, "no value is quoted", "%s", err.msg);
}

/* --- files --- */

static char folder[] = "/tmp/marmot-toml-XXXXXX";

static const char *file(const char *text, mode_t mode)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/config.toml", folder);
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fchmod(fd, mode) != 0 || close(fd) != 0) {
        abort();
    }
    return path;
}

static struct mm_config *accepts(const char *name, const char *text, const char *warning)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(file(text, 0600), &err);
    check(c != NULL && strstr(c->warnings, warning) != NULL, name, "%s %s", err.msg, c != NULL ? c->warnings : "");
    return c;
}

static void file_refused(const char *name, const char *path, const char *part)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse(path, &err);
    check(c == NULL && strstr(err.msg, part) != NULL && strstr(err.msg, "configuration file") != NULL, name, "%s",
          err.msg);
    mm_config_free(c);
}

/* Every key that Marmot v0.8.7 ships in its config.toml, commented ones too. */
static void marmot(void)
{
    struct mm_config *c = accepts(
        "a configuration of Marmot v0.8",
        "db_path=\"/tmp/marmot.db\" # the database\nnode_id=1\nseq_map_path=\"/tmp/seq-map.cbor\"\nreplicate = true\n"
        "publish = true\nscan_max_changes = 512\ncleanup_interval = 4000\nsleep_timeout = 0\npolling_interval = 0\n\n"
        "[snapshot]\nenabled=true\nstore=\"nats\"\ninterval=0\n[snapshot.nats]\nreplicas=1\nbucket=\"\"\n"
        "[snapshot.s3]\nendpoint=\"127.0.0.1:9000\"\npath=\"snapshots/marmot\"\nuse_ssl=false\n"
        "access_key=\"marmot\"\nsecret=\"ChangeMe\"\nsession_token=\"\"\nbucket=\"marmot\"\n"
        "[snapshot.webdav]\nurl=\"https://<webdav_server>/<path>?dir=/snapshots&login=<name>&secret=<password>\"\n"
        "[snapshot.sftp]\nurl=\"sftp://<user>:<password>@<sftp_server>:<port>/path/to/save/snapshot\"\n"
        "[replication_log]\nreplicas=1\nshards=1\nmax_entries=1024\ncompress=true\nupdate_existing=false\n"
        "[nats]\nurls=[\n#    \"nats://localhost:4222\"\n]\nbind_address=\"0.0.0.0:4321\"\nserver_config=\"\"\n"
        "subject_prefix=\"marmot-change-log\"\nstream_prefix=\"marmot-changes\"\nseed_file=\"\"\nuser_name=\"\"\n"
        "user_password=\"\"\nca_file=''\ncert_file=''\nkey_file=''\nconnect_retries=5\nreconnect_wait_seconds=2\n"
        "[prometheus]\nenable=false\nbind=\":3010\"\nnamespace=\"\"\nsubsystem=\"\"\n"
        "[logging]\nverbose=true\nformat=\"console\"\n",
        "scan_max_changes has no meaning here");
    bool good = c != NULL && c->node_id == 1 && c->cleanup_interval_ms == 4000 && c->log.max_entries == 1024 &&
                strcmp(c->snapshot.nats_bucket, "marmot-snapshots") == 0 && c->logging.verbose;
    check(good, "its values arrive", "other values");
    check(c != NULL && strcmp(c->nats.bind_address, "127.0.0.1:4321") == 0 && strstr(c->warnings, "nats.insecure"),
          "its open binding stays on loopback, with a warning", "%s", c != NULL ? c->warnings : "");
    mm_config_free(c);
    c = accepts("an open binding with a password stays", "[nats]\nbind_address='0.0.0.0:4222'\ntoken='t'", "[]");
    check(c != NULL && strcmp(c->nats.bind_address, "0.0.0.0:4222") == 0, "as it is written", "it was changed");
    mm_config_free(c);
}

static void programs(void)
{
    static const char text[] = "[nats]\nserver_binary='/opt/nats-server'\nserver_config='/etc/nats.conf'\n";
    struct mm_err err;
    struct mm_buf b;
    struct mm_config *c = accepts("a file names programs", text, "[]");
    check(c != NULL && strcmp(c->nats.server_binary, "/opt/nats-server") == 0, "they arrive", "they do not");
    mm_err_init(&err);
    mm_buf_init(&b, 1 << 20);
    mm_config_public(c, &b, &err);
    char *stored = mm_buf_take(&b);
    check(stored != NULL && strstr(stored, "/opt") == NULL && strstr(stored, "server_") == NULL, "they are not stored",
          "%s", stored);
    free(stored);
    mm_config_free(c);
    file_refused("others may write it", file(text, 0622), "names a program to run");
    c = accepts("without programs others may", "cluster='x'", "[]");
    mm_config_free(c);
}

static void files(void)
{
    char path[256];
    file_refused("no such file", "/nonexistent/marmot.toml", "cannot be opened (No such file");
    file_refused("a folder", folder, "no regular file");
    file_refused("a mistake has its place", file("[nats]\nurls = nats://a\n", 0600), "config.toml: line 2, column 8:");
    file_refused("an unknown key", file("[nats]\nurl = 'nats://a'\n", 0600), "nearest known one is \"nats.urls\"");
    file_refused("a wrong type", file("node_id = 1.5\n", 0600), "node_id must be a whole number");
    file_refused("a key that two ways give twice", file("'nats.token'='a'\n[nats]\ntoken='b'", 0600), "given twice");
    (void)snprintf(path, sizeof path, "%s/large.toml", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, (1 << 20) + 1) != 0 || close(fd) != 0) {
        abort();
    }
    file_refused("a file too large", path, "the limit is 1048576");
    (void)unlink(path);
    struct mm_err err;
    mm_err_init(&err);
    struct mm_config *c = mm_config_parse("user:hunter2@host", &err);
    check(c == NULL && strstr(err.msg, "hunter2") == NULL, "what may be a secret is not shown", "%s", err.msg);
}

static int print(const char *path)
{
    char text[1 << 16];
    struct mm_err err;
    mm_err_init(&err);
    FILE *f = fopen(path, "rb");
    size_t n = f != NULL ? fread(text, 1, sizeof text, f) : 0;
    json_t *root = mm_toml_parse(text, n, &err);
    char *json = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    puts(json != NULL ? json : err.msg);
    free(json);
    json_decref(root);
    return root == NULL || (f != NULL && fclose(f) != 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        return print(argv[1]);
    }
    if (mkdtemp(folder) == NULL) {
        abort();
    }
    values();
    tables();
    mistakes();
    marmot();
    programs();
    files();
    (void)unlink(file("", 0600));
    (void)rmdir(folder);
    return check_failures() != 0;
}
