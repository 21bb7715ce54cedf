"""kill -9 of nodes at random moments while three of them write: nothing that was
reported as committed is lost anywhere, no transaction is halved, all end equal.
MARMOT_TEST_ROUNDS says how many rounds (fewer where a checker makes all slow).
marmot-test: limit=200
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_writers import *  # noqa: E402,F403

ROUNDS = int(os.environ.get("MARMOT_TEST_ROUNDS") or 60)
# One of these is drawn: small limits reach the borders.
SETTINGS = [{}, {"replication_log": {"shards": 3}}, {"replication_log": {"part_size": 64}}, {"conflict": "row"},
            {"outbox_keep": 0}, {"replication_log": {"shards": 5, "part_size": 128, "compress": False}}]


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        config = dict(rng.choice(SETTINGS), nats={"urls": [nats.url], "reconnect_wait_seconds": 1})
        note(config)
        writers = [Writer(ws, name, config, rng) for name in "abc"]
        for w in writers:
            w.wait_writing(20)
        for _ in range(ROUNDS):
            victims = rng.sample(writers, rng.choice([1, 1, 1, 2, 3]))
            # The moment is what is drawn here: also while a node has just started.
            time.sleep(rng.choice([0.05, 0.2, 0.6]) * rng.random())
            for v in victims:
                v.check_alive()
                v.kill()
            for v in victims:
                v.start()
            if rng.random() < 0.3:
                for v in victims:
                    v.wait_writing(1)
        note("%d rounds" % ROUNDS)
        for w in writers:
            w.wait_writing(5)
        settle(writers, 60)
    finish()


main()
