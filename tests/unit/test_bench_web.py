"""The benchmark's web rows: what they serve is expected, and what they are judged by is there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from bench import web, webtable
from bench.harness.tools import ROOT, Unavailable
from bench.peers import builds
from bench.peers.web import page
from bench.peers.web.__main__ import TARGETS

PAGES = [name for name in TARGETS if not name.startswith("php")]


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("starlette")])
def test_an_application_answers_what_is_expected_of_its_rows(name: str) -> None:
    framework = name.partition("-")[0]
    pytest.importorskip(framework)
    module, _, attribute = TARGETS[name].partition(":")
    program = f"""
import io, sys
from {module} import {attribute} as application
environ = {{
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "",
    "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr, "wsgi.multithread": False, "wsgi.multiprocess": True,
    "wsgi.run_once": True,
}}
sys.stdout.write(b"".join(application(environ, lambda *head: None)).decode())
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.encode() == expected(name)


@pytest.mark.parametrize("name", ["php-hello", "php-page"])
def test_a_page_of_php_says_what_pythons_do(name: str) -> None:
    try:
        program = builds.php_cgi()
    except Unavailable as error:
        pytest.skip(str(error))
    file = builds.PEERS / "web" / TARGETS[name]
    told = subprocess.run([program, "-q", file], capture_output=True, check=True)
    assert told.stdout == expected(name)


def expected(application: str) -> bytes:
    rows = {row.row.expected for name, row in web.WEB.items() if name.startswith(application)}
    (answer,) = rows
    return answer


def test_a_row_that_works_is_measured_with_fewer_requests() -> None:
    hello, worked = (web.WEB[f"flask-{name}-gunicorn"] for name in ("hello", "page"))
    assert worked.requests < hello.requests
    assert hello.row.expected == page.HELLO.encode()


def rows_of(**rates: float) -> dict[str, Any]:
    record = {"p50_us": 1, "p99_us": 2, "server_cpu_us": 3, "errors": 0}
    record |= {"helper_cpu_us": 0, "child_cpu_us": 0}
    return {
        name.replace("_", "-"): {
            "about": "",
            "rounds": [{"round": 0, "requests_per_second": rate, **record}],
        }
        for name, rate in rates.items()
    }


def test_rows_of_one_application_are_beside_each_other_and_judged() -> None:
    found = rows_of(
        flask_hello_fork=1000.0,
        flask_hello_gunicorn=5000.0,
        flask_hello_gunicorn_fresh=20.0,
        php_hello_fpm=7000.0,
    )
    flask, php, judged = webtable.web_tables(found)
    assert [line[0] for line in flask.lines] == [f"`{name}`" for name in list(found)[:3]]
    assert flask.head[-2:] == ["to gunicorn", "to max-requests 1"]
    assert flask.lines[0][-2:] == ["0.20x", "50.00x"]
    assert php.head[-1] == "to php-fpm"
    (line,) = judged.lines
    assert line[1:] == ["at least 40.00x", "50.00x (50.00x to 50.00x)", "yes"]


def test_what_is_judged_are_rows_that_there_are() -> None:
    assert {name for each in webtable.WANTED for name in (each.row, each.base)} <= set(web.WEB)
