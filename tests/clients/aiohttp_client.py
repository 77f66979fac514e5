"""The client of `aiohttp` against the echo server, whose URL is the argument: mostly its compression, and closing."""

import asyncio

import aiohttp

from checks import DEADLINE, LARGE, SIZES, TEXT, check, expect, payload, run_all, run_asyncio


async def echo(ws, sent):
    """Sends what it is given, a text or bytes, and expects it back."""
    await (ws.send_str(sent) if isinstance(sent, str) else ws.send_bytes(sent))
    received = await ws.receive(DEADLINE)
    expect("echo", received.data, sent)


for path, bits in (("", 0), ("", 15), ("", 9), ("context", 15), ("context", 10)):

    @check(f"texts and bytes at /{path}, with a window of {bits} bits")
    async def texts_and_bytes(url, path=path, bits=bits):
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url + path, compress=bits) as ws:
                # What it says is the window that it compresses with, not the one that it has asked the server for.
                expect("compression", ws.compress > 0, bits > 0)
                for number in range(60):
                    await echo(ws, f"{number}: {TEXT * number}")
                for size in SIZES:
                    await echo(ws, payload(size))


@check("compression of one message and not of another")
async def one_and_not_another(url):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, compress=0) as plain:
            await echo(plain, TEXT * 1000)
        async with session.ws_connect(url, compress=15) as ws:
            await ws.send_str(TEXT * 500, compress=9)
            expect("echo", (await ws.receive(DEADLINE)).data, TEXT * 500)


@check("close by the client")
async def close_by_client(url):
    async with aiohttp.ClientSession() as session:
        ws = await session.ws_connect(url, compress=15)
        await ws.close(code=4000, message=TEXT.encode())
        expect("close", (ws.close_code, ws.exception()), (4000, None))


async def expect_close(ws):
    close = await ws.receive(DEADLINE)
    expect("close", (close.type, close.data, close.extra), (aiohttp.WSMsgType.CLOSE, 4001, "asked"))
    expect("end", (ws.close_code, ws.exception()), (4001, None))


@check("close by the server, 50 times")
async def many_closes(url):
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.ws_connect(url) as ws:
                await ws.send_str("close me")
                await expect_close(ws)


@check("close by the server, with more on the way to it")
async def close_with_more(url):
    async with aiohttp.ClientSession() as session:
        for _ in range(10):
            async with session.ws_connect(url) as ws:
                await ws.send_str("close me")
                for _ in range(30):
                    await ws.send_bytes(payload(100_000))
                await expect_close(ws)


@check("close by the client, with more on the way to it")
async def close_before_more(url):
    async with aiohttp.ClientSession() as session:
        for _ in range(10):
            async with session.ws_connect(url) as ws:
                for _ in range(10):
                    await ws.send_bytes(payload(100_000))
                await ws.close(code=4000)
                expect("close", (ws.close_code, ws.exception()), (4000, None))


@check("3 messages of 16 MiB, both ways at once")
async def large(url):
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:

        async def send():
            for _ in range(3):
                await ws.send_bytes(LARGE)

        sending = asyncio.create_task(send())
        for _ in range(3):
            expect("echo", (await ws.receive(DEADLINE)).data, LARGE)
        await sending


@check("100 at once")
async def many(url):
    # As many as it is asked for.
    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=unlimited) as session:

        async def one(number):
            async with session.ws_connect(url) as ws:
                for size in (number, 70_000):
                    await echo(ws, payload(size))
                if number % 2:
                    await ws.send_str("close me")
                    await expect_close(ws)

        await asyncio.gather(*map(one, range(100)))


run_all("aiohttp", run_asyncio)
