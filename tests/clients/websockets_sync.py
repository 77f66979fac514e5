"""The threaded client of `websockets` against the echo server, whose URL is the argument."""

import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from checks import DEADLINE, SIZES, TEXT, check, expect, payload, run_all


def open_at(url, **options):
    return connect(url, proxy=None, **options)


def await_pong(ws, sent):
    # Set by the pong with the same payload.
    expect("pong", ws.ping(sent).wait(DEADLINE), True)


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
        try:
            unexpected = ws.recv(DEADLINE)
        except ConnectionClosed as closed:
            close = closed.rcvd
            expect("close", (close.code, close.reason), (4001, "asked"))
            expect("server closed first", closed.rcvd_then_sent, True)
        else:
            expect("message", unexpected, "a close")


run_all("websockets (threads)")
