"""Trouble between nodes and their server, for tests whose nodes have a proxy each.

    harm(rng, server, ones, kinds)   # one misfortune of those kinds, and the pause after it
    trouble(rng, server, ones, kinds, seconds, until)
                                     # one after another until until() is true, then all links are healed

ones have `.proxy`. Kinds: cut, hold, half, delay, refuse (links); server (kill -9, started again); pause (of
the server, SIGSTOP); tail (the server comes back with an older state of its store, without the end of each stream).
"""
import os
import shutil
import signal
import time

LINKS = ["cut"] * 4 + ["hold"] * 3 + ["half"] + ["server"]
MORE = LINKS + ["delay", "refuse", "pause"]


def lose_tail(rng, server):
    server.end(signal.SIGKILL)
    js, keep = os.path.join(server.dir, "js"), os.path.join(server.dir, "js-old")
    shutil.copytree(js, keep)
    server.start()
    time.sleep(rng.uniform(0.3, 2))
    server.end(signal.SIGKILL)
    shutil.rmtree(js)
    os.rename(keep, js)
    server.start()
    time.sleep(1)  # a second loss before anybody has mended the first would be more than a server does


def harm(rng, server, ones, kinds):
    o = rng.choice(ones)
    what = rng.choice(kinds)
    if what == "cut":
        o.proxy.cut()
    elif what == "hold":
        o.proxy.hold(rng.choice(["up", "down", "both"]))
        time.sleep(rng.uniform(0.05, 1))
        o.proxy.heal(rng.random() < 0.5)
    elif what == "half":
        o.proxy.half_close(rng.choice(["up", "down"]))
    elif what == "delay":
        o.proxy.delay(rng.choice([0.002, 0.02, 0.1]))
        time.sleep(rng.uniform(0.05, 1))
        o.proxy.delay(0.0)
    elif what == "refuse":
        o.proxy.refuse(True)
        o.proxy.cut()
        time.sleep(rng.uniform(0.05, 1.5))
        o.proxy.refuse(False)
    elif what == "pause":
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 2))
        server.process.send_signal(signal.SIGCONT)
    elif what == "tail":
        lose_tail(rng, server)
    else:
        server.end(signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.5))
        server.start()
    time.sleep(rng.uniform(0.02, 0.6))
    return what


def trouble(rng, server, ones, kinds, seconds, until):
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        harm(rng, server, ones, kinds)
    for o in ones:
        o.proxy.heal(True)
