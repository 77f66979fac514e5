"""The asyncio client of `websockets` against the echo server, whose URL is the argument."""

import asyncio
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from checks import DEADLINE, SIZES, TEXT, check, expect, payload, run_all


def open_at(url, **options):
    return connect(url, proxy=None, **options)


@check("text")
async def text(url):
    async with open_at(url) as ws:
        for sent in (TEXT, ""):
            await ws.send(sent)
            expect("echo", await ws.recv(), sent)


for size in SIZES:

    @check(f"binary of {size} bytes")
    async def binary(url, size=size):
        async with open_at(url) as ws:
            await ws.send(payload(size))
            expect("echo", await ws.recv(), payload(size))


@check("fragments, with a ping between them")
async def fragments(url):
    async with open_at(url) as ws:

        async def parts():
            yield TEXT
            await (await ws.ping("between"))
            yield ""
            yield TEXT * 1000

        await ws.send(parts())
        expect("text", await ws.recv(), TEXT * 1001)
        await ws.send([payload(100), b"", payload(70_000)])
        expect("binary", await ws.recv(), payload(100) + payload(70_000))


@check("ping")
async def ping(url):
    async with open_at(url) as ws:
        for sent in (b"", b"hello", payload(125)):
            # Resolved by the pong with the same payload.
            await (await ws.ping(sent))


@check("50 pipelined messages")
async def pipelined(url):
    async with open_at(url) as ws:
        sent = [f"{number}: {'x' * number * 97}" for number in range(50)]
        for message in sent:
            await ws.send(message)
        expect("echoes", [await ws.recv() for _ in sent], sent)


@check("subprotocol")
async def subprotocol(url):
    for offered, wanted in (
        (None, None),
        (["echo.v1"], "echo.v1"),
        (["other", "echo.v2"], "echo.v2"),
        (["echo.v1", "echo.v2"], "echo.v1"),
        (["other"], None),
    ):
        async with open_at(url, subprotocols=offered) as ws:
            expect(f"answer to {offered}", ws.subprotocol, wanted)


@check("compression, without context and with it")
async def compression(url):
    sent = [f"{number}: {TEXT * number}" for number in range(100)]
    for path, wanted in (("", ["server_no_context_takeover", "client_no_context_takeover"]), ("context", [])):
        async with open_at(url + path, compression="deflate") as ws:
            name, *params = ws.response.headers["Sec-WebSocket-Extensions"].split("; ")
            expect("extension", name, "permessage-deflate")
            expect("context", [param for param in params if "context" in param], wanted)
            for message in sent:
                await ws.send(message)
            expect("echoes", [await ws.recv() for _ in sent], sent)


@check("close by the client")
async def close_by_client(url):
    for code, reason in ((1000, ""), (4000, TEXT), (3999, "x" * 123)):
        async with open_at(url) as ws:
            began = time.monotonic()
            await ws.close(code, reason)
            # Those of the server's frame, which also has to end the TCP connection without delay.
            expect("close", (ws.close_code, ws.close_reason), (code, reason))
            expect("delay", time.monotonic() - began > DEADLINE / 2, False)


@check("close by the server, after what was sent before")
async def close_by_server(url):
    async with open_at(url) as ws:
        for number in range(10):
            await ws.send(str(number))
        await ws.send("close me")
        for number in range(10):
            expect("echo", await ws.recv(), str(number))
        try:
            unexpected = await ws.recv()
        except ConnectionClosed as closed:
            close = closed.rcvd
            expect("close", (close.code, close.reason), (4001, "asked"))
            expect("server closed first", closed.rcvd_then_sent, True)
        else:
            expect("message", unexpected, "a close")


run_all(
    "websockets (asyncio)",
    lambda function, url: asyncio.run(asyncio.wait_for(function(url), DEADLINE)),
)
