"""zlib of Python against the echo server, whose URL is the argument: what is deflated here in every way that zlib has is
understood there, and what comes back inflates to the same."""

import random
import socket
import ssl
import struct
import zlib
from urllib.parse import urlsplit

from checks import DEADLINE, check, expect, run_all

TAIL = b"\0\0\xff\xff"
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
FLUSHES = (zlib.Z_NO_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK)
# Of messages, without a header in each.
SIZES = (0, 1, 5, 200, 1023, 1024, 3000, 40_000, 300_000)


class Client:
    """A socket that speaks WebSocket, with its compression apart."""

    def __init__(self, url, path, offer):
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), DEADLINE)
        if address.scheme == "wss":
            self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=address.hostname)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Extensions: permessage-deflate{offer}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.file.readline() or fail(f"the end of the stream, after {head}")
        lines = head.decode().split("\r\n")
        name = "sec-websocket-extensions: permessage-deflate"
        answer = next((line for line in lines if line.lower().startswith(name)), None) or fail(head)
        self.params = dict(param.strip().partition("=")[::2] for param in answer.split(";")[1:])
        self.inflater = self.new_inflater()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def bits(self, side):
        return int(self.params.get(f"{side}_max_window_bits", 15))

    def keeps_context(self, side):
        return f"{side}_no_context_takeover" not in self.params

    def new_inflater(self):
        # So small a window finds out whoever refers to more.
        return zlib.decompressobj(-self.bits("server"))

    def send(self, payload, cuts):
        """One binary message, compressed, as fragments that end at `cuts`."""
        wire = b""
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)])):
            first = (0x00 if number else 0x42) | (0x80 if number == len(cuts) else 0x00)
            part = payload[start:end]
            length = len(part)
            head = (
                struct.pack("!BB", first, 0x80 | length) if length < 126
                else struct.pack("!BBH", first, 0xFE, length) if length < 65536
                else struct.pack("!BBQ", first, 0xFF, length)
            )
            # A mask of zeros changes nothing.
            wire += head + bytes(4) + part
        self.socket.sendall(wire)

    def recv(self):
        first, length = self.file.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.file.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.file.read(8))
        self.length = length
        payload = self.file.read(length)
        if first == 0x82:
            return payload, False
        if first != 0xC2:
            fail(f"a frame {first:02x} {payload!r:.200}")
        message = self.inflater.decompress(payload + TAIL)
        if self.inflater.unused_data or self.inflater.unconsumed_tail:
            fail("more than a message")
        if not self.keeps_context("server"):
            self.inflater = self.new_inflater()
        return message, True


def fail(what):
    raise AssertionError(what)


def message(numbers, size):
    """Words, noise, or runs."""
    kind = numbers.randrange(3)
    if kind == 0:
        return numbers.randbytes(size)
    if kind == 1:
        return (b"%d" % numbers.randrange(10) * 50 * (size // 50 + 1))[:size]
    words = [b'"price":', b'"symbol":', b"{", b"}", b",", *(b"%d" % numbers.randrange(1000) for _ in range(20))]
    text = b""
    while len(text) < size:
        text += b" ".join(numbers.choices(words, k=200))
    return text[:size]


def deflated(compressor, data, numbers):
    """A message, flushed now and then, without what a sender leaves out."""
    wire = b""
    while data:
        size = numbers.randint(1, len(data))
        wire += compressor.compress(data[:size])
        wire += compressor.flush(numbers.choice(FLUSHES))
        data = data[size:]
    wire += compressor.flush(zlib.Z_SYNC_FLUSH)
    # Nothing is flushed twice, so an empty message may give nothing (RFC 7692 §7.2.3.6).
    return wire[:-4] if wire.endswith(TAIL) else wire + b"\0"


def exchange(url, path, offer, level, memory, strategy, seed, final=False):
    numbers = random.Random(seed)
    with Client(url, path, offer) as client:
        new = lambda: zlib.compressobj(level, zlib.DEFLATED, -max(client.bits("client"), 9), memory, strategy)
        compressor = new()
        for size in numbers.sample(SIZES, 6):
            sent = message(numbers, size)
            if final:
                # A last block, and the beginning of an empty one behind it (RFC 7692 §7.2.3.4).
                wire = compressor.compress(sent) + compressor.flush() + b"\0"
            else:
                wire = deflated(compressor, sent, numbers)
            if final or not client.keeps_context("client"):
                compressor = new()
            cuts = sorted(numbers.randrange(len(wire) + 1) for _ in range(numbers.randrange(4)))
            client.send(wire, cuts)
            received, _ = client.recv()
            expect(f"echo of {size} bytes, {(path, offer, level, memory, strategy, seed)}", received, sent)


@check("every level, memory and strategy of zlib")
def strategies(url):
    seed = 0
    for path in ("/", "/context"):
        for strategy in STRATEGIES:
            for level in range(10):
                seed += 1
                exchange(url, path, "", level, 1 + seed % 9, strategy, seed)


@check("every window")
def windows(url):
    seed = 1000
    for path in ("/", "/context"):
        for server in range(9, 16):
            for client in range(8, 16):
                seed += 1
                offer = f"; server_max_window_bits={server}; client_max_window_bits={client}"
                exchange(url, path, offer, 1 + seed % 9, 8, zlib.Z_DEFAULT_STRATEGY, seed)


@check("final blocks")
def final_blocks(url):
    for path in ("/", "/context"):
        for seed in range(2000, 2020):
            exchange(url, path, "", seed % 10, 8, zlib.Z_DEFAULT_STRATEGY, seed, final=True)


@check("messages are compressed, by context to very little")
def ratio(url):
    sent = b'{"type":"position","x":17.25,"y":-3.5,"name":"somebody"}' * 40
    for path, most in (("/", 200), ("/context", 50)):
        with Client(url, path, "; client_no_context_takeover") as client:
            expect("context", client.keeps_context("server"), path == "/context")
            for number in range(3):
                client.send(deflated(zlib.compressobj(wbits=-15), sent, random.Random(number)), [])
                received, is_compressed = client.recv()
                expect("echo", (received, is_compressed), (sent, True))
            expect(f"{client.length} bytes at {path}", client.length <= most, True)


run_all("zlib of Python")
