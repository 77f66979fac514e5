"""The client `websocket-client` against the echo server, whose URL is the argument."""

import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from websocket import ABNF, create_connection

from checks import DEADLINE, LARGE, SIZES, TEXT, check, expect, payload, run_all


@contextmanager
def open_at(url, **options):
    # Over TLS the end of the stream without a goodbye is an error.
    ws = create_connection(url, timeout=DEADLINE, sslopt={"suppress_ragged_eofs": False}, **options)
    try:
        yield ws
    finally:
        ws.close()


def echo(ws, sent, opcode):
    ws.send(sent, opcode)
    expect_message(ws, sent, opcode)


def expect_message(ws, sent, opcode):
    kind, received = ws.recv_data()
    expect("opcode", kind, opcode)
    expect("echo", received, sent)


def await_pong(ws, sent):
    ws.ping(sent)
    expect("pong", ws.recv_data(control_frame=True), (ABNF.OPCODE_PONG, sent))


def await_end(ws):
    expect("end of the stream", ws.sock.recv(1), b"")


def expect_close(ws):
    # Answers it, too.
    opcode, close = ws.recv_data()
    expect("close", (opcode, close), (ABNF.OPCODE_CLOSE, struct.pack("!H", 4001) + b"asked"))
    await_end(ws)


@check("text")
def text(url):
    with open_at(url) as ws:
        echo(ws, TEXT.encode(), ABNF.OPCODE_TEXT)
        echo(ws, b"", ABNF.OPCODE_TEXT)


for size in SIZES:

    @check(f"binary of {size} bytes")
    def binary(url, size=size):
        with open_at(url) as ws:
            echo(ws, payload(size), ABNF.OPCODE_BINARY)


@check("fragments, with a ping between them")
def fragments(url):
    with open_at(url) as ws:
        # The cut is inside of a character.
        whole = (TEXT * 1000).encode()
        ws.send_frame(ABNF.create_frame(whole[:3], ABNF.OPCODE_TEXT, 0))
        await_pong(ws, b"between")
        ws.send_frame(ABNF.create_frame(b"", ABNF.OPCODE_CONT, 0))
        ws.send_frame(ABNF.create_frame(whole[3:], ABNF.OPCODE_CONT, 1))
        expect_message(ws, whole, ABNF.OPCODE_TEXT)
        ws.send_frame(ABNF.create_frame(payload(100), ABNF.OPCODE_BINARY, 0))
        ws.send_frame(ABNF.create_frame(payload(70_000), ABNF.OPCODE_CONT, 1))
        expect_message(ws, payload(100) + payload(70_000), ABNF.OPCODE_BINARY)


@check("ping")
def ping(url):
    with open_at(url) as ws:
        for sent in (b"", b"hello", payload(125)):
            await_pong(ws, sent)


@check("50 pipelined messages")
def pipelined(url):
    with open_at(url) as ws:
        sent = [f"{number}: {'x' * number * 97}" for number in range(50)]
        for message in sent:
            ws.send(message)
        expect("echoes", [ws.recv() for _ in sent], sent)


@check("subprotocol")
def subprotocol(url):
    for offered, wanted in (
        (None, None),
        (["echo.v1"], "echo.v1"),
        (["other", "echo.v2"], "echo.v2"),
        (["echo.v1", "echo.v2"], "echo.v1"),
    ):
        with open_at(url, subprotocols=offered) as ws:
            expect(f"answer to {offered}", ws.getsubprotocol(), wanted)


@check("close by the client")
def close_by_client(url):
    for code, reason in ((1000, b""), (4000, TEXT.encode()), (3999, b"x" * 123)):
        with open_at(url) as ws:
            began = time.monotonic()
            ws.send_close(code, reason)
            close = ws.recv_frame()
            wanted = struct.pack("!H", code) + reason
            expect("close", (close.opcode, close.data), (ABNF.OPCODE_CLOSE, wanted))
            # The server ends the stream first, without delay (RFC 6455 §7.1.1).
            await_end(ws)
            expect("delay", time.monotonic() - began > DEADLINE / 2, False)


@check("close by the client without a code")
def close_without_code(url):
    with open_at(url) as ws:
        ws.send(b"", ABNF.OPCODE_CLOSE)
        close = ws.recv_frame()
        expect("close", (close.opcode, close.data), (ABNF.OPCODE_CLOSE, b""))
        await_end(ws)


@check("close by the server, after what was sent before")
def close_by_server(url):
    with open_at(url) as ws:
        for number in range(10):
            ws.send(str(number))
        ws.send("close me")
        for number in range(10):
            expect("echo", ws.recv(), str(number))
        expect_close(ws)


@check("close by the server, 50 times")
def many_closes(url):
    for _ in range(50):
        with open_at(url) as ws:
            ws.send("close me")
            expect_close(ws)


@check("close by the server, with more on the way to it")
def close_with_more(url):
    for _ in range(10):
        with open_at(url) as ws:
            ws.send("close me")
            for _ in range(30):
                ws.send_binary(payload(100_000))
            expect_close(ws)


@check("close by the client, with more on the way to it")
def close_before_more(url):
    for _ in range(10):
        with open_at(url) as ws:
            for _ in range(10):
                ws.send_binary(payload(100_000))
            ws.send_close(4000, TEXT.encode())
            for _ in range(10):
                expect_message(ws, payload(100_000), ABNF.OPCODE_BINARY)
            close = ws.recv_frame()
            expect("close", (close.opcode, close.data), (ABNF.OPCODE_CLOSE, struct.pack("!H", 4000) + TEXT.encode()))
            await_end(ws)


@check("3 messages of 16 MiB")
def large(url):
    with open_at(url) as ws:
        # One after the other: over TLS, no second thread may send while one receives.
        for _ in range(3):
            echo(ws, LARGE, ABNF.OPCODE_BINARY)


@check("100 at once")
def many(url):
    def one(number):
        with open_at(url) as ws:
            for size in (number, 70_000):
                echo(ws, payload(size), ABNF.OPCODE_BINARY)
            if number % 2:
                ws.send("close me")
                expect_close(ws)

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(one, range(100)))


run_all("websocket-client")
