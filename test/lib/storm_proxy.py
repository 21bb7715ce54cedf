"""TCP proxies with bad manners, one a node, in front of one server.

    p = Proxy(server_port)      # listens on p.port at once, in a thread of its own
    p.cut()                     # resets every connection
    p.half_close()              # ends one direction of each connection
    p.hold("up"|"down"|"both")  # nothing passes, nothing is closed: a black hole
    p.delay(seconds)            # each piece waits that long, both ways
    p.refuse(True)              # new connections are reset
    p.heal(cut=False)           # all passes again, what was held first

Nothing is ever dropped from the middle of a stream or reordered: it is TCP.
"""
import asyncio
import socket
import struct
import threading

PIECE = 65536
loop = None
starting = threading.Lock()


def on_loop(call):
    """Runs a coroutine in the proxies' thread and returns its value."""
    global loop
    with starting:
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(call, loop).result(10)


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    def __init__(self, target):
        self.target = target
        self.pairs = set()
        self.connections = 0
        self.seconds = 0.0
        self.refusing = False
        on_loop(self.open())

    async def open(self):
        self.passing = {"up": asyncio.Event(), "down": asyncio.Event()}
        for event in self.passing.values():
            event.set()
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=PIECE)
        self.port = self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        if self.refusing:
            reset(writer)
            return
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=PIECE)
        except OSError:
            reset(writer)
            return
        pair = (writer, other_writer)
        self.pairs.add(pair)
        self.connections += 1
        await asyncio.gather(self.pump(reader, other_writer, "up"), self.pump(other_reader, writer, "down"))
        self.pairs.discard(pair)
        for w in pair:
            w.close()

    async def pump(self, reader, writer, way):
        try:
            while True:
                data = await reader.read(PIECE)
                await self.passing[way].wait()
                if self.seconds:
                    await asyncio.sleep(self.seconds)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()

    async def do_cut(self):
        for pair in list(self.pairs):
            for writer in pair:
                reset(writer)

    async def do_half_close(self, way):
        for client, server in list(self.pairs):
            writer = server if way == "up" else client
            try:
                if writer.can_write_eof():
                    writer.write_eof()
            except (OSError, RuntimeError):
                writer.transport.abort()

    async def do_pass(self, ways, yes):
        for way in ways:
            if yes:
                self.passing[way].set()
            else:
                self.passing[way].clear()

    def cut(self):
        on_loop(self.do_cut())

    def half_close(self, way):
        on_loop(self.do_half_close(way))

    def hold(self, way):
        on_loop(self.do_pass(("up", "down") if way == "both" else (way,), False))

    def delay(self, seconds):
        self.seconds = seconds

    def refuse(self, yes):
        self.refusing = yes

    def heal(self, cut=False):
        self.refusing = False
        self.seconds = 0.0
        if cut:
            self.cut()
        on_loop(self.do_pass(("up", "down"), True))
