"""What the Python clients share: payloads, comparing, and running the checks one after the other."""

import asyncio
import random
import sys
import traceback
from os.path import commonprefix
from urllib.parse import urlsplit

SIZES = (0, 125, 126, 65_535, 65_536, 1 << 20)
# Near the largest of the server, and nothing that could be compressed.
LARGE = random.Random(16).randbytes(16 << 20)
TEXT = "Grüße, 世界 🦀"
# Nothing that works takes so long, in seconds.
DEADLINE = 10

CHECKS = []


def check(name):
    def add(function):
        CHECKS.append((name, function))
        return function

    return add


def payload(size):
    # 251 is prime: a block that is lost, doubled or in the wrong place changes the bytes behind it.
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def expect(what, got, wanted):
    if got == wanted:
        return
    where = ""
    if type(got) is type(wanted) in (bytes, str):
        start = len(commonprefix([got, wanted]))
        where = f", from {start} on, of {len(got)} and {len(wanted)}"
        got, wanted = got[start:], wanted[start:]
    raise AssertionError(f"{what}: got {got!r:.200}, wanted {wanted!r:.200}{where}")


def run_asyncio(function, url):
    """Fails by what asyncio would only log, too: errors of its transports, above all of TLS."""
    errors = []

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await asyncio.wait_for(function(url), DEADLINE)

    asyncio.run(run())
    expect("errors in the background", errors, [])


def run_all(client, run=lambda function, url: function(url)):
    """Runs every check with the URL that is the program's argument, and ends the program."""
    client = f"{client}, {urlsplit(sys.argv[1]).scheme}"
    failed = 0
    for name, function in CHECKS:
        try:
            run(function, sys.argv[1])
            print(f"ok      {client}: {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {client}: {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc()
    sys.exit(failed > 0)
