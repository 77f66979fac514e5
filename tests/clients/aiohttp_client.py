"""The client of `aiohttp` against the echo server, whose URL is the argument: mostly its compression."""

import asyncio

import aiohttp

from checks import DEADLINE, SIZES, TEXT, check, expect, payload, run_all


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
        expect("close", ws.close_code, 4000)


run_all("aiohttp", lambda function, url: asyncio.run(asyncio.wait_for(function(url), DEADLINE)))
