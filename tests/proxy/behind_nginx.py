"""What clients see of the server through nginx, whose address is the argument, as `127.0.0.1:8080`."""

import http.client
import socket
import sys
import time
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from checks import DEADLINE, TEXT, check, expect, payload, run_all

HOST = "chat.example.com"
# Where the clients come from, so that they are not taken for the proxy, which comes from 127.0.0.1.
CLIENT = "127.0.0.7"


def get(address, path="/client", **headers):
    name, port = address.split(":")
    connection = http.client.HTTPConnection(name, int(port), DEADLINE, source_address=(CLIENT, 0))
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers={"Host": HOST, **headers})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def open_at(address, origin=f"http://{HOST}", host=HOST):
    name, port = address.split(":")
    sock = socket.create_connection((name, int(port)), DEADLINE, source_address=(CLIENT, 0))
    # The `Host` of a URL with this name is the name, as the port is that of the scheme.
    return connect(
        f"ws://{host}/echo", sock=sock, origin=origin, proxy=None, max_size=16 << 20, compression=None
    )


def expect_close(ws, code, reason):
    try:
        message = ws.recv(DEADLINE)
    except ConnectionClosed as error:
        expect("close", (error.rcvd.code, error.rcvd.reason), (code, reason))
    else:
        raise AssertionError(f"got {message!r:.100} where a close was wanted")


@check("requests come with their host and their client")
def requests(address):
    expect("answer", get(address), (200, f"{CLIENT} false {HOST}"))


@check("a client cannot say that it is another one, or that it came over TLS")
def forged(address):
    answer = get(address, X_Forwarded_For="6.6.6.6", X_Forwarded_Proto="https")
    expect("answer", answer, (200, f"{CLIENT} false {HOST}"))


@check("another host is not this one over TCP, and nginx's business over a Unix socket")
def other_host(address):
    wanted = 403 if sys.argv[2] == "tcp" else 200
    expect("status", get(address, Host="evil.example")[0], wanted)


@check("messages go both ways, small and large, many at a time")
def messages(address):
    with open_at(address) as ws:
        for sent in (TEXT, "", payload(125), payload(65_536), payload(4 << 20)):
            ws.send(sent)
            expect("echo", ws.recv(DEADLINE), sent)
        sent = [f"{number}: {'x' * number * 97}" for number in range(50)]
        for message in sent:
            ws.send(message)
        expect("echoes", [ws.recv(DEADLINE) for _ in sent], sent)
        expect("pong", ws.ping(b"hello").wait(DEADLINE), True)


@check("a page of this host is let in, one of another is not")
def origins(address):
    for origin in ("https://evil.example", "null"):
        try:
            with open_at(address, origin):
                raise AssertionError(f"a page of {origin} is let in")
        except InvalidStatus as error:
            expect("status", error.response.status_code, 403)
    with open_at(address, f"https://{HOST}"):
        pass


@check("a close comes through with its code and reason, from either side")
def closes(address):
    with open_at(address) as ws:
        ws.close(4000, "bye")
        expect("code", ws.close_code, 4000)
    with open_at(address) as ws:
        ws.send("close me")
        expect_close(ws, 4001, "asked")


@check("the end of the server comes through, to all")
def restart(address):
    with ExitStack() as stack:
        clients = [stack.enter_context(open_at(address)) for _ in range(5)]
        for ws in clients:
            ws.send("there")
            expect("echo", ws.recv(DEADLINE), "there")
        expect("status", get(address, "/restart")[0], 200)
        for ws in clients:
            expect_close(ws, 1001, "the server shuts down")


def wait_for(address):
    name, port = address.split(":")
    began = time.monotonic()
    while True:
        try:
            return socket.create_connection((name, int(port)), 1).close()
        except OSError:
            if time.monotonic() - began > DEADLINE:
                raise
            time.sleep(0.02)


wait_for(sys.argv[1])
run_all(f"nginx over {sys.argv[2]}")
