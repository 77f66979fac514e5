"""The threaded client of `websockets` against the echo server, whose URL is the argument."""

import ssl
import time
from concurrent.futures import ThreadPoolExecutor

from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import connect

from checks import DEADLINE, LARGE, SIZES, TEXT, check, expect, payload, run_all


# It reads and writes in two threads, which OpenSSL in Python does not stand when session tickets come, and they come
# behind the handshake in TLS 1.3: once in some hundred times it waits for ever, for whichever server
# (https://github.com/python/cpython/issues/151508).
TLS = ssl.create_default_context()
TLS.maximum_version = ssl.TLSVersion.TLSv1_2


def open_at(url, **options):
    if url.startswith("wss:"):
        options["ssl"] = TLS
    return connect(url, proxy=None, **options)


def await_pong(ws, sent):
    # Set by the pong with the same payload.
    expect("pong", ws.ping(sent).wait(DEADLINE), True)


def expect_close(ws):
    try:
        unexpected = ws.recv(DEADLINE)
    except ConnectionClosed as closed:
        expect("close", closed.rcvd, Close(4001, "asked"))
        expect("server closed first", closed.rcvd_then_sent, True)
    else:
        expect("message", unexpected, "a close")


@check("text")
def text(url):
    with open_at(url) as ws:
        for sent in (TEXT, ""):
            ws.send(sent)
            expect("echo", ws.recv(DEADLINE), sent)


for size in SIZES:

    @check(f"binary of {size} bytes")
    def binary(url, size=size):
        with open_at(url) as ws:
            ws.send(payload(size))
            expect("echo", ws.recv(DEADLINE), payload(size))


@check("fragments, with a ping between them")
def fragments(url):
    with open_at(url) as ws:

        def parts():
            yield TEXT
            await_pong(ws, "between")
            yield ""
            yield TEXT * 1000

        ws.send(parts())
        expect("text", ws.recv(DEADLINE), TEXT * 1001)
        ws.send([payload(100), b"", payload(70_000)])
        expect("binary", ws.recv(DEADLINE), payload(100) + payload(70_000))


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
        expect("echoes", [ws.recv(DEADLINE) for _ in sent], sent)


@check("subprotocol")
def subprotocol(url):
    for offered, wanted in (
        (None, None),
        (["echo.v1"], "echo.v1"),
        (["other", "echo.v2"], "echo.v2"),
        (["echo.v1", "echo.v2"], "echo.v1"),
        (["other"], None),
    ):
        with open_at(url, subprotocols=offered) as ws:
            expect(f"answer to {offered}", ws.subprotocol, wanted)


@check("compression, without context and with it")
def compression(url):
    sent = [f"{number}: {TEXT * number}" for number in range(100)]
    for path, wanted in (("", ["server_no_context_takeover", "client_no_context_takeover"]), ("context", [])):
        with open_at(url + path, compression="deflate") as ws:
            name, *params = ws.response.headers["Sec-WebSocket-Extensions"].split("; ")
            expect("extension", name, "permessage-deflate")
            expect("context", [param for param in params if "context" in param], wanted)
            for message in sent:
                ws.send(message)
            expect("echoes", [ws.recv(DEADLINE) for _ in sent], sent)


@check("close by the client")
def close_by_client(url):
    for code, reason in ((1000, ""), (4000, TEXT), (3999, "x" * 123)):
        with open_at(url) as ws:
            began = time.monotonic()
            ws.close(code, reason)
            # Those of the server's frame, which also has to end the TCP connection without delay.
            expect("close", (ws.close_code, ws.close_reason), (code, reason))
            expect("delay", time.monotonic() - began > DEADLINE / 2, False)


@check("close by the server, after what was sent before")
def close_by_server(url):
    with open_at(url) as ws:
        for number in range(10):
            ws.send(str(number))
        ws.send("close me")
        for number in range(10):
            expect("echo", ws.recv(DEADLINE), str(number))
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
        with open_at(url, compression=None) as ws:
            ws.send("close me")
            try:
                for _ in range(30):
                    ws.send(payload(100_000))
            except ConnectionClosed:
                pass
            expect_close(ws)


@check("close by the client, with more on the way to it")
def close_before_more(url):
    for _ in range(10):
        with open_at(url, compression=None) as ws:
            for _ in range(10):
                ws.send(payload(100_000))
            ws.close(4000, TEXT)
            expect("close", (ws.close_code, ws.close_reason), (4000, TEXT))


@check("3 messages of 16 MiB, both ways at once")
def large(url):
    with ThreadPoolExecutor() as pool, open_at(url, compression=None, max_size=None) as ws:
        sending = pool.submit(lambda: [ws.send(LARGE) for _ in range(3)])
        for _ in range(3):
            expect("echo", ws.recv(DEADLINE), LARGE)
        sending.result()


@check("100 at once")
def many(url):
    def one(number):
        with open_at(url) as ws:
            for size in (number, 70_000):
                ws.send(payload(size))
                expect("echo", ws.recv(DEADLINE), payload(size))
            if number % 2:
                ws.send("close me")
                expect_close(ws)

    with ThreadPoolExecutor(100) as pool:
        list(pool.map(one, range(100)))


run_all("websockets (threads)")
