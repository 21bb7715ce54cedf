"""A NATS client of a few lines, for tests that send what no node would send.

    with RawNats(port) as nats:
        nats.publish(subject, b"..", {"Header": "value"})
        answer = nats.request("$JS.API.STREAM.INFO.x", b"")      # bytes
        info = nats.api("STREAM.INFO.x", {..})                   # JSON both ways
"""
import json
import socket


class RawNats:
    def __init__(self, port, seconds=10):
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.file = self.socket.makefile("rb")
        self.info = json.loads(self.line().split(b" ", 1)[1])
        self.inboxes = 0
        self.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        while self.line() != b"PONG":
            pass

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        return line.rstrip(b"\r\n")

    def publish(self, subject, data, headers=None, reply=""):
        if headers is None:
            self.send(b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), reply.encode(), len(data), data))
            return
        head = "NATS/1.0\r\n" + "".join("%s: %s\r\n" % kv for kv in headers.items()) + "\r\n"
        self.send(b"HPUB %s %s %d %d\r\n%s%s\r\n" % (subject.encode(), reply.encode(), len(head),
                                                   len(head) + len(data), head.encode(), data))

    def message(self):
        """The next message that comes: (headers, data)."""
        while True:
            words = self.line().split()
            if words[0] == b"PING":
                self.send(b"PONG\r\n")
            elif words[0] == b"-ERR":
                raise ConnectionError(b" ".join(words).decode())
            elif words[0] in (b"MSG", b"HMSG"):
                whole = self.file.read(int(words[-1]) + 2)[:-2]
                head = int(words[-2]) if words[0] == b"HMSG" else 0
                return whole[:head], whole[head:]

    def request(self, subject, data=b"", headers=None):
        self.inboxes += 1
        inbox = "_INBOX.test%d.%d" % (id(self), self.inboxes)
        self.send(b"SUB %s %d\r\nUNSUB %d 1\r\n" % (inbox.encode(), self.inboxes, self.inboxes))
        self.publish(subject, data, headers, inbox)
        return self.message()[1]

    def api(self, what, body=None):
        """One request of JetStream's interface."""
        return json.loads(self.request("$JS.API." + what, json.dumps(body).encode() if body is not None else b""))

    def stream(self, name):
        """Configuration and state of a stream."""
        info = self.api("STREAM.INFO." + name)
        if "error" in info:
            raise KeyError("%s: %s" % (name, info["error"]))
        return info["config"], info["state"]

    def stored(self, stream, data, subject):
        """Publishes into a stream and returns the sequence that it got."""
        answer = json.loads(self.request(subject, data))
        if "error" in answer:
            raise ValueError("%s: %s" % (stream, answer["error"]))
        return answer["seq"]
