"""The NATS server is stopped, killed and frozen while three nodes write: they go
on, nothing is lost, all end equal.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_writers import *  # noqa: E402,F403

ROUNDS = 9


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = {"nats": {"urls": [nats.url], "reconnect_wait_seconds": 1}}
        writers = [Writer(ws, name, config, rng) for name in "abc"]
        for w in writers:
            w.wait_writing(20)
        for k in range(ROUNDS):
            if k % 3 == 2:
                nats.pause()
            elif k % 3 == 1:
                nats.kill()
            else:
                nats.stop()
            for w in writers:
                w.wait_writing(rng.randrange(10, 60))
            if k % 3 == 2:
                nats.resume()
            else:
                nats.start()
            for w in writers:
                w.wait_writing(rng.randrange(10, 120))
        ok("writers go on through %d outages" % ROUNDS)
        settle(writers, 60)
    finish()


main()
