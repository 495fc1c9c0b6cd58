"""A connection after each kind of request, answered or refused: it reads on, or it ends."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import example, given, settings

from serve.harness import Response, Server
from serve.kept import MAX_BODY, PHASES, Ask, Plan, carry_out, plans

CONFIG = f"""
max-body = {MAX_BODY}
keep-alive-timeout = "60s"
exec-timeout = "60s"
max-inflight = 8

[[route]]
path = "/raw"
command = "wc -c"

[[route]]
path = "/deaf"
command = "true"

[[route]]
path = "/one"
max-inflight = 1
command = "wc -c"

[[route]]
path = "/full"
max-inflight = 1
queue = 0
command = ["sh", "-c", "echo $$; exec sleep 60"]

[[route]]
path = "/cgi"
mode = "cgi"
shell = true
command = 'n=$(wc -c); printf "Content-Type: text/plain\\n\\n%d %d" $n "$CONTENT_LENGTH"'

[[route]]
path = "/moved"
mode = "cgi"
shell = true
command = 'printf "Location: /raw\\n\\n"'

[[route]]
path = "/scripts/{{path...}}"
mode = "cgi"
cgi-dir = "."
strategy = "direct"
"""

PATHS = ("/raw", "/cgi", "/deaf", "/one", "/full", "/moved", "/scripts/none", "/healthz", "/none")

SERVERS = {
    "direct": (),
    "direct, two workers": ("--workers", "2"),
    "direct, asyncio": ("--loop", "asyncio"),
    "snapshot": ("--snapshot-at", "main"),
    "snapshot, two workers": ("--snapshot-at", "main", "--workers", "2"),
    "warm": (),
    "pool": (),
    "subprocess": ("--loop", "asyncio"),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """All of whose places at /full are taken."""
    if sys.platform != "linux" and "snapshot" in request.param:
        pytest.skip("Linux only")
    directory = tmp_path_factory.mktemp("kept")
    config = directory / "serve.toml"
    config.write_text(CONFIG)
    options = [
        *("--config", str(config), "--cwd", str(directory), "--health-path", "/healthz"),
        *("--strategy", request.param.partition(",")[0], *SERVERS[request.param]),
    ]
    server = Server(directory, options, ())
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        taken = 0
        while taken < 1 + ("--workers" in options):
            client = stack.enter_context(server.connect())
            client.get("/full")
            taken += client.read_head().status == 200
        yield server


WHATEVER_THE_BODY: Final = {
    "/none": (404, b"404 Not Found: "),
    "/deaf": (200, b""),
    "/full": (503, b"503 Service Unavailable: "),
    "/moved": (200, b"0\n"),
    "/scripts/none": (404, b"404 Not Found: "),
    "/healthz": (200, b"ok\n"),
}


def expected(ask: Ask, answer: Response) -> tuple[int, bytes]:
    """The status, and how the body begins."""
    known = WHATEVER_THE_BODY.get(ask.path)
    # Which of two refusals comes first is the clock's affair.
    if ask.size > MAX_BODY and (known is None or answer.status == 413):
        return 413, b"413 Content Too Large: "
    if ask.path == "/healthz" and ask.method == "POST":
        return 405, b"405 Method Not Allowed: "
    if known is not None:
        return known
    return 200, b"%d %d" % (ask.size, ask.size) if ask.path == "/cgi" else b"%d\n" % ask.size


POST_66000 = Ask("POST", "/raw", 66_000, 0, expect=False)
"""Is received whole at once, and is more than is kept for a process that is not there yet."""


@given(plan=plans(PATHS))
@example(Plan((POST_66000,), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/cgi", 66_000, 0, expect=False),), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/cgi", 66_000, 4096, expect=False),), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/moved", 66_000, 0, expect=False),), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/full", 66_000, 0, expect=False),), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/full", 66_000, 4096, expect=False),) * 2, pipelined=True, cuts=()))
@example(Plan((Ask("POST", "/scripts/none", 66_000, 0, False),), pipelined=False, cuts=()))
@example(Plan((Ask("POST", "/healthz", 66_000, 0, expect=False),), pipelined=False, cuts=()))
@example(Plan((POST_66000, POST_66000, POST_66000), pipelined=True, cuts=()))
@example(Plan((Ask("HEAD", "/raw", 65_537, 0, False), POST_66000), pipelined=True, cuts=(0.6,)))
@example(Plan((Ask("GET", "/deaf", 138_084, 0, False), POST_66000), pipelined=True, cuts=()))
@settings(max_examples=100, phases=PHASES, report_multiple_bugs=False)
def test_the_next_request_is_answered(server: Server, plan: Plan) -> None:
    with server.connect() as client:
        for ask, answer in carry_out(client, plan):
            status, body = expected(ask, answer)
            assert (answer.status, answer.complete) == (status, True), (ask, answer)
            if ask.method != "HEAD":
                assert answer.body.lstrip().startswith(body), (ask, answer)
    assert not re.search("Traceback|never retrieved", server.errors())
