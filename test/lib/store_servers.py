"""Real servers for the tests of the snapshot stores, on loopback, each with its
folder in the workspace. start() waits until the server answers; the workspace
kills them. A class whose program is missing has `missing` set: skip it.

    Apache(ws, digest=False, tls=False), RcloneDav(ws): user "u", password "p:@ w", root url, directory `root`
    Sshd(ws): keys alone, user of the process; RcloneSftp(ws): user "u", password
    Swift(ws): S3; access key "test:tester", secret "testing"; bucket(name) makes one
"""
import getpass
import glob
import http.client
import os
import shutil
import socket
import subprocess
import time

from marmot_test import die_with_parent, free_port, plain_env, wait_until

USER, PASSWORD = "u", "p:@ w"
DAEMONS = "/usr/sbin:/usr/bin:/sbin:/bin"


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + DAEMONS)


def listens(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


class Server:
    program = None

    def __init__(self, ws, label):
        self.ws = ws
        self.port = free_port()
        self.dir = os.path.join(ws.dir, "%s-%d" % (label, self.port))
        self.root = os.path.join(self.dir, "root")
        os.makedirs(self.root)
        self.processes = []

    @classmethod
    def missing(cls):
        return None if program(cls.program) else "%s is not installed" % cls.program

    def run(self, command, **options):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            p = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
                                 env=dict(plain_env(), PATH=os.environ.get("PATH", "") + ":" + DAEMONS), **options)
        self.processes.append(p)
        return p

    def up(self, port=None):
        def ready():
            if self.processes[-1].poll() is not None:
                with open(os.path.join(self.dir, "log"), errors="replace") as log:
                    raise RuntimeError("%s ended: %s" % (self.program, log.read()[-800:]))
            return listens(port or self.port)
        wait_until(ready, 20, self.program + " listens")
        return self

    def stop(self):
        for p in self.processes:
            p.kill()
            p.wait()
        self.processes = []

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path


def authority(ws):
    """A certificate for localhost that nobody else trusts."""
    key, cert = os.path.join(ws.dir, "tls.key"), os.path.join(ws.dir, "tls.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return cert, key


class Apache(Server):
    program = "apache2"

    def __init__(self, ws, digest=False, tls=None, root=None):
        super().__init__(ws, "apache")
        self.root = root or self.root
        os.chmod(ws.dir, 0o711)
        realm = "marmot"
        if digest:
            import hashlib
            secret = hashlib.md5(("%s:%s:%s" % (USER, realm, PASSWORD)).encode()).hexdigest()
            users = "%s:%s:%s\n" % (USER, realm, secret)
        else:
            secret = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True).stdout
            users = "%s:%s" % (USER, secret)
        kind = "digest" if digest else "basic"
        modules = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_" + kind, "dav", "dav_fs"] + (["ssl", "socache_shmcb"] if tls else [])
        who = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
        secure = "SSLEngine on\nSSLCertificateFile %s\nSSLCertificateKeyFile %s\n" % tls if tls else ""
        self.scheme = "https" if tls else "http"
        self.url = "%s://localhost:%d/dav" % (self.scheme, self.port) if tls else "http://127.0.0.1:%d/dav" % self.port
        self.conf = self.write("conf", """ServerRoot %(dir)s
ServerName localhost
PidFile %(dir)s/pid
Listen 127.0.0.1:%(port)d
ErrorLog %(dir)s/errors
%(who)sMutex file:%(dir)s default
%(load)s
DavLockDB %(dir)s/lock
DocumentRoot %(dir)s
Alias /dav %(root)s
%(secure)s<Directory %(root)s>
Dav On
AuthType %(kind)s
AuthName %(realm)s
AuthUserFile %(users)s
Require valid-user
</Directory>
""" % {"dir": self.dir, "port": self.port, "root": self.root, "kind": kind, "realm": realm, "secure": secure, "who": who,
       "users": self.write("users", users),
       "load": "".join("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n" % (m, m) for m in modules + ["alias"])})
        if os.geteuid() == 0:
            for path in (self.dir, self.root):
                shutil.chown(path, "www-data", "www-data")

    @classmethod
    def missing(cls):
        return None if program("apache2") and os.path.exists("/usr/lib/apache2/modules/mod_dav.so") else "apache2 is not installed"

    def start(self):
        self.run([program("apache2"), "-D", "FOREGROUND", "-f", self.conf])
        return self.up()


class RcloneDav(Server):
    program = "rclone"

    def __init__(self, ws, root=None):
        super().__init__(ws, "rclone")
        self.root = root or self.root
        self.url = "http://127.0.0.1:%d" % self.port

    def start(self):
        self.run([program("rclone"), "serve", "webdav", self.root, "--addr", "127.0.0.1:%d" % self.port, "--user", USER, "--pass",
                  PASSWORD, "--config", os.path.join(self.dir, "none"), "--cache-dir", os.path.join(self.dir, "cache")])
        return self.up()


class RcloneSftp(Server):
    program = "rclone"

    def __init__(self, ws):
        super().__init__(ws, "rclone-sftp")

    def start(self):
        self.key = os.path.join(self.dir, "host")
        keygen(self.key)
        self.run([program("rclone"), "serve", "sftp", self.root, "--addr", "127.0.0.1:%d" % self.port, "--user", USER, "--pass",
                  PASSWORD, "--key", self.key, "--config", os.path.join(self.dir, "none"), "--cache-dir", os.path.join(self.dir, "cache")])
        return self.up()


def keygen(path, passphrase="", kind="ed25519"):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", path], check=True)


def known_hosts(path, port, key):
    with open(key + ".pub") as f:
        kind, text = f.read().split()[:2]
    with open(path, "w") as f:
        f.write("[127.0.0.1]:%d %s %s\n" % (port, kind, text))
    return path


def fingerprint(key):
    return subprocess.run(["ssh-keygen", "-l", "-f", key + ".pub"], capture_output=True, text=True, check=True).stdout.split()[1]


class Sshd(Server):
    program = "sshd"

    def __init__(self, ws, root=None):
        super().__init__(ws, "sshd")
        self.root = root or self.root
        self.user = getpass.getuser()
        self.key, self.client, self.locked = (os.path.join(self.dir, n) for n in ("host", "client", "locked"))
        keygen(self.key)
        keygen(self.client)
        keygen(self.locked, "open sesame", "ecdsa")
        keys = ""
        for name in (self.client, self.locked):
            with open(name + ".pub") as f:
                keys += f.read()
        self.conf = self.write("conf", "Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nPidFile %s/pid\nUsePAM no\n"
                               "StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
                               % (self.port, self.key, self.write("keys", keys), self.dir))

    def start(self):
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self.run([program("sshd"), "-D", "-e", "-f", self.conf])
        return self.up()


class Swift(Server):
    """OpenStack's object store with its S3 face: account, container, object and proxy server, memcached."""
    program = "swift-proxy-server"

    def __init__(self, ws, root=None):
        super().__init__(ws, "swift")
        self.root = root or self.root
        self.access, self.secret = "test:tester", "testing"
        self.endpoint = "127.0.0.1:%d" % self.port
        self.node = os.path.join(self.root, "sda1")
        os.makedirs(self.node)

    @classmethod
    def missing(cls):
        for name in ("swift-proxy-server", "swift-account-server", "swift-container-server", "swift-object-server", "swift-ring-builder", "memcached"):
            if not program(name):
                return name + " is not installed"
        return None

    def start(self):
        user = getpass.getuser()
        cache = free_port()
        self.write("swift.conf", "[swift-hash]\nswift_hash_path_suffix = t\nswift_hash_path_prefix = t\n[storage-policy:0]\nname = p0\ndefault = yes\n")
        common = "[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = %%d\nworkers = 0\nuser = %s\nswift_dir = %s\n" % (user, self.dir)
        self.run([program("memcached"), "-l", "127.0.0.1", "-p", str(cache), "-u", user])
        ports = {}
        for kind in ("object", "container", "account"):
            ports[kind] = free_port()
            self.write(kind + "-server.conf", common % ports[kind] + "devices = %s\nmount_check = false\ndisable_fallocate = true\n"
                       "[pipeline:main]\npipeline = %s-server\n[app:%s-server]\nuse = egg:swift#%s\n" % (self.root, kind, kind, kind))
            builder = os.path.join(self.dir, kind + ".builder")
            for step in (["create", "4", "1", "1"], ["add", "r1z1-127.0.0.1:%d/sda1" % ports[kind], "1"], ["rebalance"]):
                subprocess.run([program("swift-ring-builder"), builder] + step, check=True, stdout=subprocess.DEVNULL,
                               env=dict(plain_env(), SWIFT_DIR=self.dir))
            self.run([program("swift-%s-server" % kind), os.path.join(self.dir, kind + "-server.conf")])
        self.write("proxy-server.conf", common % self.port + """[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:%d
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
""" % cache)
        self.run([program("swift-proxy-server"), os.path.join(self.dir, "proxy-server.conf")])
        for port in list(ports.values()) + [cache]:
            wait_until(lambda p=port: listens(p), 20, "swift listens")
        return self.up()

    def bucket(self, name):
        """By Swift's own API: the account's container is the bucket."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        c.request("GET", "/auth/v1.0", headers={"X-Auth-User": self.access, "X-Auth-Key": self.secret})
        answer = c.getresponse()
        answer.read()
        where = answer.getheader("X-Storage-Url").split("/v1/")[1]
        c.request("PUT", "/v1/%s/%s" % (where, name), headers={"X-Auth-Token": answer.getheader("X-Auth-Token"), "Content-Length": "0"})
        made = c.getresponse()
        made.read()
        if made.status not in (201, 202):
            raise RuntimeError("swift makes no bucket: %d" % made.status)
