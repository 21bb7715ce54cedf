"""The kinds of hosts that the tests in test/host/ run: how each is brought here
and started.

    kind = KINDS["perl"]
    command = kind.prepare()      # installs into build/hosts/; raises Absent(why)
    host = kind.start(ws, "a", config)   # a Console: ask, one, sync, status, quit

Each host is a program of test/host/ in its own language, with one protocol:
    host DATABASE EXTENSION
opens the file with its language's library, loads the extension, and reads lines:
    .print WORDS     prints the words
    .other SQL       runs SQL on a second connection, which loads nothing
    .quit            closes its connections and ends
    .exit            ends by the language's exit call, the connections open
any other line is one SQL statement; rows come back with | between the columns,
an error as a line that begins with "Error: ".

Debian's packages are installed by the Makefile (DEPS_CHECK, DEPS_HOSTS). What comes
from another registry is installed here, with its version written down: upstream's
builds carry a SQLite of their own, and that is what people run.
"""
import os
import shutil
import subprocess

from marmot_test import EXTENSION, PYTHON, TOP, SqlError, plain_env
from cluster_hosts import Console

HERE = os.path.join(TOP, "test", "host")
BUILT = os.path.join(TOP, "build", "hosts")
INSTALL_SECONDS = 900


class Absent(Exception):
    """The host cannot be had on this machine; the text says why."""


class KindHost(Console):
    """A running host of a kind."""
    own_session = True

    def __init__(self, ws, name, kind, **how):
        self.kind = kind
        self.start_command = kind.prepare()
        super().__init__(ws, name, **how)

    def command(self):
        self.read_errors = os.path.getsize(self.errors)
        return self.start_command + [self.db, self.extension]

    def other(self, sql):
        """Runs a statement on the second connection."""
        return self.ask(".other " + sql)

    def leave(self, word):
        """Ends the host by `.quit` or `.exit`; its exit code."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        code = self.process.wait(30)
        self.reap()
        return code


class ShellHost(KindHost):
    """The sqlite3 shell: its own words for the protocol's."""

    def prepare(self):
        self.ask(".timeout 5000", "SELECT load_extension('%s');" % self.extension)

    def command(self):
        self.read_errors = os.path.getsize(self.errors)
        self.had_error = False
        return self.start_command + [self.db]

    def other(self, sql):
        # On the first connection: to tell what kind of file it is, the shell's `.open` opens and
        # closes it by itself, and with that the process loses all locks that it holds on the file.
        return self.ask(sql)

    def ask(self, *lines):
        try:
            return super().ask(*lines)
        except SqlError:
            self.had_error = True
            raise

    def leave(self, word):
        # Only with a code does it go by exit(), its connection open; else its code tells of errors.
        code = super().leave(".exit 77" if word == ".exit" else word)
        return code - (77 if word == ".exit" else int(self.had_error))


class Kind:
    """capture is what `auto` must find: "hook", or "trigger" where the host's
    SQLite lacks the preupdate hook or hides it."""

    def __init__(self, name, what, capture, prepare, host=KindHost):
        self.name, self.what, self.capture = name, what, capture
        self.make, self.host = prepare, host
        self.made = None

    def prepare(self):
        if self.made is None:
            self.made = self.make()
        return self.made

    def start(self, ws, name, **how):
        return self.host(ws, name, self, **how)


def program(*names):
    """The first of the programs that is on PATH."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise Absent("%s is not installed" % names[0])


def run(where, *command, **more_env):
    """A step of an installation; raises Absent with the end of what it said."""
    try:
        done = subprocess.run(command, cwd=where, env=dict(plain_env(), **more_env), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as e:
        raise Absent("%s: not within %d s" % (" ".join(command[:3]), INSTALL_SECONDS)) from e
    if done.returncode != 0:
        raise Absent("%s failed: %s" % (" ".join(command[:3]), " ".join(done.stdout.split())[-300:]))


def installed(name, recipe, install):
    """The folder build/hosts/<name>, filled by install(folder) unless a run with
    the same recipe (a text) has filled it."""
    folder = os.path.join(BUILT, name)
    stamp = os.path.join(folder, "stamp")
    if os.path.exists(stamp):
        with open(stamp) as f:
            if f.read() == recipe:
                return folder
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    install(folder)
    with open(stamp, "w") as f:
        f.write(recipe)
    return folder


def npm(package):
    """The folder node_modules with one package of the npm registry in it."""
    def install(folder):
        with open(os.path.join(folder, "package.json"), "w") as f:
            f.write('{"private": true}\n')
        headers = os.path.dirname(os.path.dirname(os.path.realpath(program("node", "nodejs"))))
        # Where it must be compiled: with the headers of the Node that is here.
        local = {"npm_config_nodedir": headers} if os.path.isdir(os.path.join(headers, "include", "node")) else {}
        run(folder, program("npm"), "install", "--no-audit", "--no-fund", package, **local)
    name = package.rsplit("@", 1)[0]
    return os.path.join(installed("npm-" + name, package, install), "node_modules")


def node24():
    return os.path.join(npm("node@24.21.0"), "node", "bin", "node")


def script(name):
    return os.path.join(HERE, name)


def with_npm(package, driver):
    """A package of the npm registry under a Node; its folder is where the program looks for it."""
    def prepare():
        modules = npm(package)
        # Prebuilt for the ABI that is common to Node's versions, or compiled for the Node that is here.
        node = node24() if driver == "better-sqlite3" else program("node", "nodejs")
        return ["env", "NODE_PATH=" + modules, node, script("host.cjs"), driver]
    return prepare


def bun():
    return [os.path.join(npm("bun@1.4.5"), "bun", "bin", "bun.exe"), script("host.cjs"), "bun:sqlite"]


def deno():
    path = os.path.join(npm("deno@2.9.6"), "@deno", "linux-x64-glibc", "deno")
    return [path, "run", "-A", script("host.cjs"), "node:sqlite"]


def pypi(driver, *packages):
    """A virtual environment of Debian's Python."""
    def install(folder):
        run(folder, PYTHON, "-m", "venv", "env")
        run(folder, os.path.join(folder, "env", "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", *packages)

    def prepare():
        folder = installed("pypi-" + driver, " ".join(packages), install)
        return [os.path.join(folder, "env", "bin", "python"), script("host.py"), driver]
    return prepare


def sources(*names):
    texts = []
    for name in names:
        with open(script(name)) as f:
            texts.append(f.read())
    return "".join(texts)


def golang(name, *flags):
    def install(folder):
        run(script("go"), program("go"), "build", *flags, "-o", os.path.join(folder, "host"), ".", CGO_ENABLED="1")

    def prepare():
        recipe = sources("go/main.go", "go/go.mod", "go/go.sum") + " ".join(flags)
        return [os.path.join(installed(name, recipe, install), "host")]
    return prepare


def rust(name, *flags):
    def install(folder):
        run(script("rust"), program("cargo"), "build", "--locked", "--quiet", *flags, CARGO_TARGET_DIR=folder,
            RUSTFLAGS="-Clink-arg=-rdynamic" if flags else "")

    def prepare():
        recipe = sources("rust/src/main.rs", "rust/Cargo.toml", "rust/Cargo.lock") + " ".join(flags)
        return [os.path.join(installed(name, recipe, install), "debug", "host")]
    return prepare


JDBC = "org.xerial:sqlite-jdbc:3.54.1.0"
SLF4J = "org.slf4j:slf4j-api:1.7.36"


def java():
    def install(folder):
        for artifact in (JDBC, SLF4J):
            run(folder, program("mvn"), "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                "-Dartifact=" + artifact, "-DoutputDirectory=" + folder)
        run(folder, program("javac"), "-cp", os.path.join(folder, "*"), "-d", folder, script("Host.java"))
    folder = installed("java", JDBC + SLF4J + sources("Host.java"), install)
    # On a machine of few cores the default collector's many threads are only noise.
    return [program("java"), "-XX:+UseSerialGC", "-cp", folder + ":" + os.path.join(folder, "*"), "Host"]


def c_host(name, *flags):
    def install(folder):
        run(folder, os.environ.get("CC", "gcc"), "-O1", "-Wall", "-o", "host", script("host.c"),
            *flags)

    def prepare():
        return [os.path.join(installed(name, sources("host.c") + " ".join(flags), install), "host")]
    return prepare


def php():
    # A folder is what PHP asks for; the file name is all that a script may give.
    return [program("php"), "-d", "sqlite3.extension_dir=" + os.path.dirname(EXTENSION), script("host.php")]


def rscript():
    path = program("Rscript")
    run(HERE, path, "-e", "library(RSQLite)")
    return [path, script("host.R")]


def perl():
    run(HERE, program("perl"), "-MDBD::SQLite", "-e", "1")
    return [program("perl"), script("host.pl")]


def ruby():
    run(HERE, program("ruby"), "-e", "require 'sqlite3'")
    return [program("ruby"), script("host.rb")]


STATIC = ["-l:libsqlite3.a", "-lm"]

KINDS = {k.name: k for k in [
    Kind("shell", "the sqlite3 shell", "hook", lambda: [program("sqlite3"), "-batch"], ShellHost),
    Kind("c", "C, the system's libsqlite3", "hook", c_host("c", "-lsqlite3")),
    Kind("c-static", "C, SQLite linked in, its symbols hidden", "trigger", c_host("c-static", *STATIC)),
    Kind("c-rdynamic", "C, SQLite linked in, its symbols exported", "hook", c_host("c-rdynamic", *STATIC, "-rdynamic")),
    Kind("python", "Python's sqlite3", "hook", lambda: [PYTHON, script("host.py"), "sqlite3"]),
    Kind("python-apsw", "apsw of PyPI", "trigger", pypi("apsw", "apsw==3.54.1.0")),
    Kind("python-pysqlite3", "pysqlite3-binary of PyPI", "trigger", pypi("pysqlite3", "pysqlite3-binary==0.5.4.post2")),
    Kind("perl", "Perl's DBD::SQLite of Debian", "hook", perl),
    Kind("php", "PHP's SQLite3", "hook", php),
    Kind("ruby", "Ruby's sqlite3 of Debian", "hook", ruby),
    Kind("tcl", "Tcl's sqlite3", "hook", lambda: [program("tclsh"), script("host.tcl")]),
    Kind("lua", "LuaJIT by its FFI", "hook", lambda: [program("luajit"), script("host.lua")]),
    Kind("node", "Node 24's node:sqlite", "trigger", lambda: [node24(), script("host.cjs"), "node:sqlite"]),
    Kind("better-sqlite3", "better-sqlite3 of npm in Node 24", "trigger", with_npm("better-sqlite3@13.2.0", "better-sqlite3")),
    Kind("node-sqlite3", "sqlite3 of npm", "trigger", with_npm("sqlite3@6.0.1", "sqlite3")),
    Kind("bun", "bun:sqlite", "trigger", bun),
    Kind("deno", "Deno's node:sqlite", "trigger", deno),
    Kind("go", "mattn/go-sqlite3", "trigger", golang("go")),
    Kind("go-hook", "mattn/go-sqlite3 with the hook", "hook",
         golang("go-hook", "-tags=sqlite_preupdate_hook", "-ldflags=-extldflags=-rdynamic")),
    Kind("rust", "rusqlite, bundled", "trigger", rust("rust")),
    Kind("rust-hook", "rusqlite, bundled, with the hook", "hook", rust("rust-hook", "--features=hook")),
    Kind("java", "sqlite-jdbc of Maven Central", "trigger", java),
    Kind("r", "R's RSQLite of Debian", "trigger", rscript),
]}
