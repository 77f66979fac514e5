"""The asyncio client of `websockets` against the echo server, whose URL is the argument."""

import asyncio
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from checks import DEADLINE, LARGE, SIZES, TEXT, check, expect, payload, run_all, run_asyncio


def open_at(url, **options):
    return connect(url, proxy=None, **options)


async def expect_close(ws):
    try:
        unexpected = await ws.recv()
    except ConnectionClosed as closed:
        expect("close", closed.rcvd, Close(4001, "asked"))
        expect("server closed first", closed.rcvd_then_sent, True)
    else:
        expect("message", unexpected, "a close")


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
        await expect_close(ws)


@check("close by the server, 50 times")
async def many_closes(url):
    for _ in range(50):
        async with open_at(url) as ws:
            await ws.send("close me")
            await expect_close(ws)


@check("close by the server, with more on the way to it")
async def close_with_more(url):
    for _ in range(10):
        async with open_at(url, compression=None) as ws:
            await ws.send("close me")
            try:
                for _ in range(30):
                    await ws.send(payload(100_000))
            except ConnectionClosed:
                pass
            await expect_close(ws)


@check("close by the client, with more on the way to it")
async def close_before_more(url):
    for _ in range(10):
        async with open_at(url, compression=None) as ws:
            for _ in range(10):
                await ws.send(payload(100_000))
            await ws.close(4000, TEXT)
            expect("close", (ws.close_code, ws.close_reason), (4000, TEXT))


@check("3 messages of 16 MiB, both ways at once")
async def large(url):
    async with open_at(url, compression=None, max_size=None) as ws:

        async def send():
            for _ in range(3):
                await ws.send(LARGE)

        sending = asyncio.create_task(send())
        for _ in range(3):
            expect("echo", await ws.recv(), LARGE)
        await sending


@check("100 at once")
async def many(url):
    async def one(number):
        async with open_at(url) as ws:
            for size in (number, 70_000):
                await ws.send(payload(size))
                expect("echo", await ws.recv(), payload(size))
            if number % 2:
                await ws.send("close me")
                await expect_close(ws)

    await asyncio.gather(*map(one, range(100)))


run_all("websockets (asyncio)", run_asyncio)
