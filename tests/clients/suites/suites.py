"""Points the test suites of other projects at a server of ours: a plugin of pytest.

`LOCAL_WS_SERVER_PORT` is where the server listens (the name is that of websocket-client's suite), `SUITES_SERVER` its
program. Of each suite those cases are kept that talk to a server which can be ours.
"""

import inspect
import os
import subprocess
from types import SimpleNamespace

import pytest

PORT = int(os.environ["LOCAL_WS_SERVER_PORT"])
# So many cases are in these versions: a run that lost some has to be noticed.
CASES = 178

LIMITS = "the server takes up to 16 KiB"
NO_CODINGS = "no transfer coding but chunked is known"
NO_COMPRESSION = "what does not get shorter by it is not compressed, and messages do not refer to those before them"
NO_PROXY = "CONNECT is for proxies"
NO_ROUTE = "`*` is the path of no route"
NO_WS_TARGET = "an absolute target is http: (RFC 6455 §4.1), not ws:"
TRAILERS = "trailers are thrown away, so that none is forbidden (RFC 9110 §6.5.1)"
# Cases in which the server does something else, and why. They fail the run when they come to pass.
DIFFERENT = {
    "EndToEndHyBiTest::test_echo_permessage_deflate": NO_COMPRESSION,
    "EndToEndHyBiTest::test_echo_permessage_deflate_preference": NO_COMPRESSION,
    "EndToEndHyBiTest::test_echo_permessage_deflate_two_frames": NO_COMPRESSION,
    "EndToEndHyBiTest::test_echo_permessage_deflate_two_messages": NO_COMPRESSION,
    "EndToEndHyBiTest::test_echo_permessage_deflate_two_msgs_server_no_context_takeover": NO_COMPRESSION,
    "EndToEndHyBiTest::test_echo_permessage_deflate_with_parameters": NO_COMPRESSION,
    "EndToEndHyBiTest::test_close_on_unsupported_frame": "a reserved bit is 1002 (RFC 6455 §7.4.1), not 1003",
    "EndToEndHyBiTest::test_version_check": "another version is 426 (RFC 6455 §4.4), not 400",
    "EndToEndHyBiTest::test_absolute_uri": NO_WS_TARGET,
    "EndToEndHyBiTest::test_invalid_absolute_uri": NO_WS_TARGET,
    "EndToEndHyBiTest::test_invalid_basic_auth_connection": "the server asks for no password",
    "EndToEndTestWithCgi::test_cgi": "the server runs no programs",
    "test_request[invalid/006]": LIMITS,
    "test_request[invalid/007]": LIMITS,
    "test_request[invalid/008]": LIMITS,
    "test_request[invalid/017]": LIMITS,
    "test_request[invalid/041]": "what a second Content-Type means is the handler's business",
    "test_request[invalid/rfc9110_trailer_forbidden_cl_01]": TRAILERS,
    "test_request[invalid/rfc9110_trailer_forbidden_host_01]": TRAILERS,
    "test_request[invalid/rfc9110_trailer_forbidden_te_01]": TRAILERS,
    "test_request[invalid/rfc9112_leading_crlf_02]": "any number of empty lines before a request is ignored",
    "test_request[invalid/rfc9112_target_asterisk_non_options_01]": NO_ROUTE,
    "test_request[invalid/rfc9112_target_non_ascii_02]": "UTF-8 in the target is taken as it is",
    "test_request[valid/005]": "a fragment in the target is an error (RFC 9112 §3.2)",
    "test_request[valid/025]": NO_CODINGS,
    "test_request[valid/025_line]": NO_CODINGS,
    "test_request[valid/029]": NO_CODINGS,
    "test_request[valid/030]": NO_CODINGS,
    "test_request[valid/031]": "the method is not one of RFC 9110",
    "test_request[valid/099]": "the body ends before its Content-Length",
    "test_request[valid/rfc9112_smuggle_gzip_chunked_01]": NO_CODINGS,
    "test_request[valid/rfc9112_smuggle_te_identity_chunked_01]": NO_CODINGS,
    "test_request[valid/rfc9112_target_absolute_userinfo_01]": "a user in the target is an error (RFC 9110 §4.2.4)",
    "test_request[valid/rfc9112_target_asterisk_options_01]": NO_ROUTE,
    "test_request[valid/rfc9112_target_authority_connect_01]": NO_PROXY,
    "test_request[valid/rfc9112_target_authority_ipv6_01]": NO_PROXY,
}


def pywebsocket3(items):
    module = items[0].module
    stream = module.client_for_testing.WebSocketStream
    receive_close = stream.assert_receive_close

    def run_server(test, extra_args=()):
        program = [os.environ["SUITES_SERVER"], str(test.test_port)]
        return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def assert_receive_close(self, code, reason):
        """With an error any reason will do: the case cannot know it."""
        if code in (None, module.client_for_testing.STATUS_NORMAL_CLOSURE) or reason:
            return receive_close(self, code, reason)
        head = module.client_for_testing.receive_bytes(self._socket, 2)
        payload = module.client_for_testing.receive_bytes(self._socket, head[1])
        assert (head[0], payload[:2]) == (0x88, code.to_bytes(2)), f"{head + payload!r}, not a close with {code}"

    module.EndToEndTestBase._run_server = run_server
    stream.assert_receive_close = assert_receive_close
    return items


def trio_websocket(items):
    async def serve_websocket(*_, task_status, **__):
        task_status.started(SimpleNamespace(port=PORT))

    items[0].module.serve_websocket = serve_websocket
    # The clock that jumps ahead does so while another process has yet to answer.
    return [
        item for item in items if "echo_server" in item.fixturenames and "autojump_clock" not in item.fixturenames
    ]


def websocket_client(items):
    return [item for item in items if "LOCAL_WS_SERVER_PORT" in inspect.getsource(item.function)]


ADAPTERS = {
    "test.test_endtoend": pywebsocket3,
    "test_connection": trio_websocket,
    "websocket.tests.test_app": websocket_client,
    "websocket.tests.test_websocket": websocket_client,
}


def pytest_collection_modifyitems(items):
    modules = {}
    for item in items:
        modules.setdefault(item.module.__name__, []).append(item)
    items[:] = []
    for name, cases in modules.items():
        kept = ADAPTERS[name](cases) if name in ADAPTERS else cases
        print(f"{name}: {len(kept)} of {len(cases)} cases")
        items += kept
    if len(items) != CASES:
        raise pytest.UsageError(f"{len(items)} cases, not {CASES}")
    for item in items:
        different = DIFFERENT.get(item.nodeid.partition("::")[2])
        if different:
            item.add_marker(pytest.mark.xfail(reason=different, strict=True))
