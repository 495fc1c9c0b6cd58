"""A connection after each kind of request to a ProcessApp: it reads on, or it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import example, given, settings

from asgi.harness import AsgiServer
from serve.kept import MAX_BODY, PHASES, Ask, Plan, carry_out, plans

CGI: Final = 'n=$(wc -c); printf "Content-Type: text/plain\\n\\n%d %d" $n "$CONTENT_LENGTH"'
STRATEGIES: Final = ("direct", "snapshot", "warm", "pool", "subprocess")


@pytest.fixture(
    scope="module",
    params=[(mode, strategy) for strategy in STRATEGIES for mode in ("raw", "cgi")],
    ids=", ".join,
)
def mode(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, AsgiServer]]:
    mode, strategy = request.param
    if sys.platform != "linux" and strategy == "snapshot":
        pytest.skip("Linux only")
    command = ["wc", "-c"] if mode == "raw" else ["sh", "-c", CGI]
    options = {"command": command, "mode": mode, "strategy": strategy, "max_body": MAX_BODY}
    server = AsgiServer(tmp_path_factory.mktemp("kept"), "uvicorn", options)
    try:
        yield mode, server
    finally:
        server.stop()


LARGE: Final = Ask("POST", "/", 66_000, 0, expect=False)


@given(plan=plans(["/"]))
@example(Plan((LARGE,), pipelined=False, cuts=()))
@example(Plan((LARGE, LARGE), pipelined=True, cuts=()))
@settings(max_examples=30, phases=PHASES, report_multiple_bugs=False)
def test_the_next_request_is_answered(mode: tuple[str, AsgiServer], plan: Plan) -> None:
    kind, server = mode
    with server.connect() as client:
        for ask, answer in carry_out(client, plan):
            if ask.size > MAX_BODY:
                assert (answer.status, answer.complete) == (413, True), ask
                continue
            assert (answer.status, answer.complete) == (200, True), (ask, answer)
            if ask.method != "HEAD":
                sizes = [int(word) for word in answer.body.split()]
                assert sizes == [ask.size] * (2 if kind == "cgi" else 1), ask
