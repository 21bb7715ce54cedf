"""Messages of the change log by hand: proto/marmot.proto without a generator.

    fields = split(data)                      # [(number, type, value), ..] of one message
    data = join(fields)                       # and back
    message(node, incarnation, seq, txid, previous, body) -> bytes
    insert(table, columns, key, values)       -> body of a transaction with one INSERT
"""
import struct

VARINT, FIXED64, BYTES = 0, 1, 2
TRANSACTION, PART, FOUNDED, WATCH = 14, 15, 16, 17


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def zigzag(n):
    return (n << 1 ^ n >> 63) & (1 << 64) - 1


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def fixed(number, value):
    return varint(number << 3 | FIXED64) + struct.pack("<q", value)


def split(data):
    at = 0
    out = []

    def number():
        nonlocal at
        n = shift = 0
        while True:
            n |= (data[at] & 127) << shift
            at += 1
            if not data[at - 1] & 128:
                return n
            shift += 7
    while at < len(data):
        tag = number()
        if tag & 7 == VARINT:
            out.append((tag >> 3, VARINT, number()))
        elif tag & 7 == FIXED64:
            out.append((tag >> 3, FIXED64, struct.unpack_from("<q", data, at)[0]))
            at += 8
        else:
            size = number()
            out.append((tag >> 3, BYTES, data[at:at + size]))
            at += size
    return out


def join(fields):
    return b"".join(fixed(n, v) if kind == FIXED64 else field(n, v) for n, kind, v in fields)


def message(node, incarnation, seq, txid, previous, body, kind=TRANSACTION, epoch=1, version=1):
    return (field(1, version) + field(2, epoch) + fixed(3, node) + fixed(4, incarnation) + field(5, seq) +
            field(6, txid) + (field(7, previous) if previous else b"") + field(8, seq) + field(9, seq) +
            field(kind, body))


def insert(table, columns, key, values):
    """One INSERT; values are integers and texts."""
    kinds = bytes(1 if isinstance(v, int) else 3 for v in values)
    texts = [v.encode() for v in values if isinstance(v, str)]
    body = field(1, table) + b"".join(field(2, c) for c in columns)
    body += field(3, b"".join(varint(k) for k in key)) + field(4, b"\1") + field(6, kinds)
    body += field(7, b"".join(varint(zigzag(v)) for v in values if isinstance(v, int)))
    body += field(9, b"".join(varint(len(t)) for t in texts)) + field(10, b"".join(texts))
    return field(1, body)
