/* What a server is asked about streams while it is creating them: it must live. marmot-test: parallel */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "test/lib/bus.h"

enum { STREAMS = 150, ASKERS = 2 };

static struct nats_server server;

/* Asks for messages of streams that come one after another. Ends 0 when all were met; 1 after an error. */
static int ask(void)
{
    struct mm_err err;
    mm_err_init(&err);
    struct mm_bus *b = bus_to(server.url, &err);
    int64_t until = mm_clock_mono_ms() + 60000;
    for (int n = 0; b != NULL && n < STREAMS && mm_clock_mono_ms() < until;) {
        char name[32];
        struct mm_stored m;
        (void)snprintf(name, sizeof name, "s%d", n);
        n += mm_bus_stream_get(b, name, 1, &m, BUS_MS, &err);
        free(m.data);
        if (err.rc == SQLITE_BUSY && mm_bus_connected(b)) {
            mm_err_init(&err); /* caught in the middle: asked again */
        }
        if (err.rc != SQLITE_OK) {
            break;
        }
        if (n == STREAMS) {
            mm_bus_close(b);
            return 0;
        }
    }
    fprintf(stderr, "# %s\n", err.msg);
    return 1;
}

int main(void)
{
    struct mm_err err;
    pid_t pid[ASKERS];
    mm_err_init(&err);
    nats_start(&server, "");
    for (int k = 0; k < ASKERS; k++) {
        pid[k] = fork();
        if (pid[k] == 0) {
            _exit(ask());
        }
    }
    struct mm_bus *b = bus_to(server.url, &err);
    bool good = b != NULL;
    for (int n = 0; n < STREAMS && good; n++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%d", n);
        good = bus_stream(b, name, name, -1, &err) && bus_fill(b, name, 0, 1, 10, &err);
    }
    nats_check("streams are created while others ask for their messages", good, "%s", err.msg);
    for (int k = 0; k < ASKERS; k++) {
        int status = 0;
        bool ended = pid[k] > 0 && waitpid(pid[k], &status, 0) == pid[k];
        nats_check("who asks meets every message", ended && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d",
                   status);
    }
    nats_check("the server lives", waitpid(server.pid, NULL, WNOHANG) == 0, "it ended");
    mm_bus_close(b);
    nats_stop(&server);
    return nats_report();
}
