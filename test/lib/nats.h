/* A real nats-server for one test program, and the program's report.
**
** The server lives in a folder of its own under TMPDIR, listens on a free
** loopback port that it keeps over restarts, and dies with the test. */
#ifndef MM_TEST_NATS_H
#define MM_TEST_NATS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct nats_server {
    pid_t pid;
    int port;
    char dir[128];
    char url[64];
    char config[8192]; /* more configuration lines, "" for none */
};

/* Starts it and waits until it answers; ends the program when it cannot. */
void nats_start(struct nats_server *s, const char *config);
void nats_again(struct nats_server *s);         /* after nats_kill: same port, same store */
void nats_kill(struct nats_server *s, int sig); /* and waits for its end */
void nats_stop(struct nats_server *s);          /* kills it, removes the folder */

int nats_free_port(void);    /* below the ephemeral range: no outgoing connection takes it */
bool nats_answers(int port); /* an INFO line within 200 ms */
void nats_remove(const char *dir);

int64_t nats_count_fds(void);
int64_t nats_count_threads(void);
int64_t nats_rss_kb(void);

/* "ok name" or "not ok name: why"; nats_report gives main's return value. */
bool nats_check(const char *name, bool good, const char *why, ...) __attribute__((format(printf, 3, 4)));
int nats_report(void);

#endif
