"""File systems of a few MB that fill up.

    with Workspace() as ws:
        if not private_mounts("x"):    # prints `skipped ..` where mounting is impossible
            finish()
        disk = SmallDisk(ws, "b", 8)   # a tmpfs of 8 MB at <ws.dir>/b, gone with the Workspace
        disk.fill(leave=4096)          # a file of ballast takes all but so many bytes
        disk.empty()

private_mounts: before anything else of the test has started. The process, and
what it starts, gets a mount namespace of its own: nobody else sees the disks.
"""
import ctypes
import os

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def tried(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (what, os.strerror(code)))


def unshare():
    """As root plainly, else within a user namespace in which this user is root."""
    if os.geteuid() == 0:
        tried(LIBC.unshare(CLONE_NEWNS), "unshare")
        return
    uid, gid = os.geteuid(), os.getegid()
    tried(LIBC.unshare(CLONE_NEWNS | CLONE_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % uid), ("gid_map", "0 %d 1" % gid)):
        with open("/proc/self/" + name, "w") as f:
            f.write(text)


def mount(path, kind, flags, options):
    tried(LIBC.mount(b"none", path.encode(), kind, flags, options), "mount")


def private_mounts(name):
    """True when this process can mount file systems of its own; else says that `name` is skipped."""
    try:
        unshare()
        mount("/", None, MS_REC | MS_PRIVATE, None)
        mount("/mnt", b"tmpfs", 0, b"size=64k")
        tried(LIBC.umount(b"/mnt"), "umount")
        return True
    except OSError as e:
        print("skipped %s: no file system can be mounted here (%s)" % (name, e.strerror), flush=True)
        return False


class SmallDisk:
    def __init__(self, ws, name, megabytes):
        self.path = os.path.join(ws.dir, name)
        self.ballast = os.path.join(self.path, "ballast")
        os.makedirs(self.path, exist_ok=True)
        mount(self.path, b"tmpfs", 0, b"size=%dm" % megabytes)
        ws.servers.append(self)  # its end unmounts it

    def room(self):
        s = os.statvfs(self.path)
        return s.f_bavail * s.f_frsize

    def fill(self, leave=0):
        with open(self.ballast, "ab", buffering=0) as f:
            try:
                while self.room() > leave:
                    f.write(bytes(min(65536, self.room() - leave)))
            except OSError:
                pass

    def empty(self):
        if os.path.exists(self.ballast):
            os.unlink(self.ballast)

    def kill(self):
        tried(LIBC.umount2(self.path.encode(), MNT_DETACH), "umount")
