"""--live-path: the page in a real browser, where there is one, and the figures that it shows."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from bench.browser import Browser, find
from bench.check_page import check_colours

import needs
from fastspawn._cli.looks import fetch
from fastspawn.serve.figures.look import Look, RouteLook, quantile
from serve.conftest import Serve
from serve.harness import Server, poll, routes_file

BOTH = ("--live-path", "/-/live", "--metrics-path", "/-/metrics")
MOST = 20_000
"""Bytes of the page."""
WHOLE = "Infinity"
"""Of the page's choices: all of the time that it was open."""


def load(server: Server) -> None:
    """Each of these ends before its answer does."""
    with server.connect() as client:
        for target, status in (("/fail", 500), ("/", 200), ("/late", 504), ("/%zz", 400)):
            client.get(target)
            assert client.read().status == status
    for _ in range(21):
        assert server.get("/").status == 200


def routes(folder: Path) -> tuple[str, ...]:
    config = routes_file(
        folder / "serve.toml",
        fail="command = ['false']",
        late="command = 'sleep 60'\nexec-timeout = '300ms'",
        hold="command = 'sleep 60'",
    )
    return (*BOTH, "--config", config)


# ---- without a browser ----


def test_only_where_asked_for(start: Serve) -> None:
    """Without the option its path is anybody's; with it no other path is the page's."""
    server = start()
    assert server.get("/live").body == b"hi\n"
    assert server.get("/live?figures").body == b"hi\n"
    server = start("--live-path", "/live")
    assert server.get("/live").body.startswith(b"<!doctype html>")
    assert server.get("/live/").body == b"hi\n"
    assert server.get("/metrics").body == b"hi\n"


def test_what_a_browser_may_do(start: Serve) -> None:
    """Run what stands in the file, and ask this server; nothing else."""
    server = start("--live-path", "/live")
    answer = server.get("/live")
    assert answer.fields["content-type"] == "text/html; charset=utf-8"
    assert answer.fields["x-content-type-options"] == "nosniff"
    policy = dict(
        part.partition(" ")[::2] for part in answer.fields["content-security-policy"].split("; ")
    )
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>".encode(), answer.body, re.DOTALL)
        assert policy[f"{tag}-src"] == f"'sha256-{b64encode(sha256(text).digest()).decode()}'"
    assert len(answer.body) < MOST
    assert set(re.findall(rb"https?://[^\"]*", answer.body)) == {b"http://www.w3.org/2000/svg"}
    with server.connect() as client:
        client.request("HEAD", "/live")
        assert client.read(head=True).fields["content-length"] == str(len(answer.body))
        client.request("POST", "/live")
        assert client.read().status == 405


def test_without_prometheus(start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page and figures need no package but this one, and neither does top."""
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = start("--live-path", "/live")
    found = json.loads(server.get("/live?figures").body)
    assert [route["route"] for route in found["routes"]] == ["/{...}", "(none)"]
    top = (sys.executable, "-m", "fastspawn", "top", "--once", "--interval", "100ms")
    done = subprocess.run(
        [*top, f"http://127.0.0.1:{server.port}/live"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "/{...}" in done.stdout


def test_the_same_figures_as_metrics(any_way: Serve, tmp_path: Path) -> None:
    server = any_way(*routes(tmp_path))
    load(server)
    where = f"http://127.0.0.1:{server.port}/-/"
    seen = fetch(where + "live")
    assert seen == fetch(where + "metrics")
    found = {route["route"]: route for route in seen["routes"]}
    assert set(found) == {"/fail", "/late", "/hold", "/{...}", "(none)"}
    assert (found["/{...}"]["requests"], found["/{...}"]["failed"]) == (22, 0)
    assert (found["/fail"]["requests"], found["/fail"]["failed"]) == (1, 1)
    assert found["/late"]["kills"] == {"deadline": 1}
    assert found["(none)"]["requests"] == 1
    assert sum(found["/{...}"]["run"]) == 22
    assert found["/{...}"]["resets"] is None


def test_all_workers(start: Serve, tmp_path: Path) -> None:
    server = start(*routes(tmp_path), "--workers", "2")
    where = f"http://127.0.0.1:{server.port}/-/"
    for _ in range(5):
        load(server)
    seen = fetch(where + "live")
    assert seen["workers"] == 2
    assert sum(route["requests"] for route in seen["routes"]) == 5 * 25
    assert seen["routes"] == fetch(where + "metrics")["routes"]


@needs.residents
def test_residents(start: Serve) -> None:
    server = start(*BOTH, "--strategy", "reset", command=("/bin/echo", "hi"))
    where = f"http://127.0.0.1:{server.port}/-/"

    def resets() -> int:
        server.get("/")
        return fetch(where + "live")["routes"][0]["resets"] or 0

    poll(resets, "a reset")
    # Between two looks a resident may retire.
    poll(lambda: fetch(where + "live") == fetch(where + "metrics"), "the same figures")


# ---- in a browser ----


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("no browser (Debian: chromium)")
    with Browser(program) as browser:
        yield browser


CELLS = """[...document.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) =>
  cell.firstChild ? [...cell.childNodes].map((part) => part.textContent).join("|") : ""))"""
FACTS = '[...document.querySelectorAll("#server dd")].map((each) => each.textContent)'
STATE = 'document.getElementById("state").textContent'


def show(browser: Browser, server: Server) -> None:
    """Until it shows something."""
    browser.call("Page.navigate", url=f"http://127.0.0.1:{server.port}/-/live")
    browser.wait_for("Page.loadEventFired")
    poll(lambda: browser.evaluate(CELLS), "rows")


def choose(browser: Browser, span: str) -> None:
    chosen = f'const span = document.getElementById("span"); span.value = "{span}"'
    browser.evaluate(f'{{ {chosen}; span.dispatchEvent(new Event("change")) }}')


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def row(look: Look, route: RouteLook, before: RouteLook) -> list[str]:
    """As the page has it, but for the requests a second."""
    run = [now - then for now, then in zip(route["run"], before["run"], strict=True)]
    kills = ", ".join(f"{why} {n}" for why, n in route["kills"].items())
    return [
        *(route["route"], route["strategy"]),
        *(str(route[key]) for key in ("running", "waiting", "requests", "failed")),  # type: ignore[literal-required]
        *(duration(quantile(look["moments"], run, share)) for share in (0.5, 0.99)),
        f"{sum(route['kills'].values())}" + (f"|{kills}" if kills else ""),
        *("-", "-", "-"),
    ]


def without_rates(rows: list[list[str]]) -> list[list[str]]:
    return [[*cells[:5], *cells[6:]] for cells in rows]


def test_it_shows_what_metrics_tell(browser: Browser, start: Serve, tmp_path: Path) -> None:
    """Of two workers, one of which has a request that still runs."""
    server = start(*routes(tmp_path), "--workers", "2")
    where = f"http://127.0.0.1:{server.port}/-/metrics"
    before = fetch(where)
    show(browser, server)
    choose(browser, WHOLE)
    was = {route["route"]: route for route in before["routes"]}
    with server.connect() as held:
        held.get("/hold")
        for _ in range(3):
            load(server)
        poll(lambda: any(route["running"] for route in fetch(where)["routes"]), "a process")
        told = fetch(where)
        rows = [row(told, route, was[route["route"]]) for route in told["routes"]]
        poll(lambda: without_rates(browser.evaluate(CELLS)) == rows, f"on the page: {rows}")
    facts = browser.evaluate(FACTS)
    assert facts[:2] == ["2", "0"]
    # Requests a second, as the caption has the seconds.
    text = browser.evaluate('document.getElementById("caption").textContent')
    seconds = float(re.search(r"([\d.]+) s$", text)[1])  # type: ignore[index]
    for cells in browser.evaluate(CELLS):
        rate, requests = float(cells[5].split("|")[0]), int(cells[4])
        assert rate * seconds == pytest.approx(requests, abs=0.06 * seconds + 0.06 * rate)
    check_colours(browser)
    asked = {
        event["params"]["request"]["url"].removeprefix(f"http://127.0.0.1:{server.port}")
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    }
    assert asked - {"data:,"} == {"/-/live", "/-/live?figures"}
    wrong = ("Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in browser.events if event.get("method") in wrong] == []


def press(browser: Browser, key: str, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
        )


def test_with_keys_and_a_screen_reader(browser: Browser, start: Serve) -> None:
    """What it is called, and that it can be stopped and goes on; what it says when the server is
    gone."""
    server = start(*BOTH)
    show(browser, server)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    told = {
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if not node["ignored"]
    }
    assert {
        ("button", "Pause"), ("status", ""), ("rowheader", "/{...}"), ("columnheader", "p99"),
    } <= told  # fmt: skip
    named = {role: name for role, name in told if name}
    assert named["combobox"].startswith("Rates and times")
    assert named["table"].startswith("Routes, rates and times")
    assert named["region"].startswith("Routes, rates and times")

    press(browser, "Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "pause"
    browser.press_enter()
    assert browser.evaluate(STATE) == "Paused."
    requests = 'document.querySelector("tbody td:nth-child(5)").textContent'
    browser.press_enter()
    assert browser.evaluate('document.activeElement.getAttribute("aria-pressed")') == "false"
    server.get("/")
    poll(lambda: browser.evaluate(requests) == "1", "the request")
    press(browser, "Tab", 9)
    press(browser, "Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "frame"  # which scrolls

    server.process.send_signal(signal.SIGTERM)
    poll(lambda: "does not answer" in browser.evaluate(STATE), "what it says then")
    assert browser.evaluate(requests) == "1"
