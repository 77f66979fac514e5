"""The requests that gunicorn tests its parser with, valid and invalid ones, sent to a server of ours."""

import re
import socket
from pathlib import Path

import pytest
# From the sources of gunicorn: the files are its tests' data, and this is what reads them.
import treq

from suites import PORT

REQUESTS = Path(treq.__file__).parent / "requests"
# A request that is refused is answered with one of these, and nothing else.
REFUSALS = {400, 431, 501, 505}
# What the server answers at a path that is nothing, with what it understood, and at one that is for WebSockets.
NOTHING, WEBSOCKET = 404, 426


def cases():
    for file in sorted(REQUESTS.glob("*valid/*.http")):
        # Those that set something are about options of gunicorn.
        if "cfg.set(" not in file.with_suffix(".py").read_text():
            yield pytest.param(file, id=f"{file.parent.name}/{file.stem}")


def with_host(data):
    """Adds the `Host` that HTTP/1.1 wants: most cases leave it out, and would be refused for that."""
    # What follows HTTP/1.0 is a body, unless the connection is kept.
    is_last = b"HTTP/1.0" in data.splitlines()[0] and b"Keep-Alive" not in data
    if is_last or re.search(rb"\nhost:", data, re.IGNORECASE):
        return data
    return re.sub(rb" HTTP/1\.1\r\n", rb"\g<0>Host: localhost\r\n", data)


def exchange(data):
    """The responses: status and body of each."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = connection.makefile("rb").read()
    responses = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\ncontent-length: (\d+)", head)[1])
        responses.append((int(head.split()[1]), received[:length]))
        received = received[length:]
    return responses


def understood(request):
    """The answer of the server to a request that gunicorn understands like this."""
    path = request["uri"]["path"]
    return (WEBSOCKET, None) if path == "/" else (NOTHING, f"{request['method']} {path}\n".encode() + request["body"])


@pytest.mark.parametrize("file", cases())
def test_request(file):
    responses = exchange(with_host(treq.badrequest(file).data))
    wanted = treq.load_py(str(file.with_suffix(".py")))["request"]
    if file.parent.name == "invalid":
        assert [status for status, _ in responses if status not in REFUSALS] == []
        assert responses != []
    else:
        requests = wanted if isinstance(wanted, list) else [wanted]
        assert [
            (status, None if status == WEBSOCKET else body) for status, body in responses
        ] == [understood(request) for request in requests]
