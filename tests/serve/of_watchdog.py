"""What of-watchdog of OpenFaaS is asked, and what it answered.

``python tests/serve/of_watchdog.py`` asks the of-watchdog on the PATH and writes
``of_watchdog.json``, which ours is compared with where there is none. No registry has it: it is
built from its repository.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from netspace import apart
from serve.harness import BOUND, Client, poll

THEIRS = next(filter(None, map(shutil.which, ("of-watchdog", "fwatchdog"))), None)
OURS = (sys.executable, "-m", "fastspawn.serve", "--openfaas")
RECORDED = Path(__file__).with_suffix(".json")
PORT = 8080

FUNCTION = r"""
ulimit -c 0
case "$Http_Path" in
    /exit/*) cat > /dev/null; echo partly; exit "${Http_Path#/exit/}" ;;
    /kill/*) kill "-${Http_Path#/kill/}" $$ ;;
    /hold) : > "$TMPDIR/held"; until [ -e "$TMPDIR/go" ]; do sleep 0.05; done; echo held ;;
    /sleep) exec sleep 600 ;;
    /long) exec seq 20000 ;;
    /cat) exec cat ;;
    /stderr) echo said >&2; echo told ;;
    /empty) ;;
    *) export LC_ALL=C; echo "$#:$1:$2:$3"; env | grep -a '^Http_' | sort; echo; cat ;;
esac
"""


@dataclass
class Ask:
    method: str = "GET"
    target: str = "/"
    fields: Sequence[str] = ()
    body: bytes = b""
    differs: bool = False
    """Answered in another way here, as docs/platforms.md says."""


def post(target: str, body: bytes, *fields: str) -> Ask:
    return Ask("POST", target, (f"Content-Length: {len(body)}", *fields), body)


CHUNKED = b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n"
ASKED = [
    Ask(),
    Ask("HEAD"),
    Ask("DELETE", "/a/b?x=1&y=%20"),
    Ask(target="/with%20space/%C3%A4?"),
    Ask(target="/a%2fb"),
    Ask(target="/%ff"),
    Ask(target="/a/b/?a?b"),
    Ask(target="http://elsewhere/abs?q"),
    Ask("OPTIONS", "/"),
    Ask("PATCH", "/", ("Content-Length: 2",), b"hi"),
    Ask(fields=("X-Two: one", "X-Two: two", "x-lower-CASE: Value", "X-Empty:")),
    Ask(fields=("Connection: X-Hop", "X-Hop: 1", "TE: trailers", "Keep-Alive: 9")),
    Ask(fields=("Authorization: Bearer x", "Cookie: a=b", "X-Forwarded-For: 10.0.0.1")),
    Ask(fields=("Method: FOO", "Path: /bar", "X-Call-Id: 0-1")),
    Ask(target="/?its=own", fields=("Query: another",)),
    Ask(fields=("User-Agent: kube-probe/1.36", "Accept: */*")),
    post("/", b"hello"),
    post("/", b"", "Content-Type: application/json"),
    Ask("POST", "/", ("Transfer-Encoding: chunked",), CHUNKED),
    post("/cat", bytes(range(256)) * 2000, "Expect: 100-continue"),
    post("/cat", b"\0"),
    Ask(target="/long"),
    Ask("HEAD", "/exit/0"),
    Ask(target="/empty"),
    Ask(target="/stderr"),
    Ask(target="/exit/0"),
    Ask(target="/exit/1"),
    Ask("HEAD", "/exit/1"),
    post("/exit/255", b"read"),
    Ask(target="/kill/TERM"),
    Ask(target="/kill/KILL"),
    Ask(target="/kill/SEGV"),
    Ask(target="/kill/USR1"),
    Ask(target="/_/health"),
    Ask(target="/_/health?x"),
    Ask("HEAD", "/_/health"),
    post("/_/health", b"x"),
    Ask(target="/_/health/"),
    Ask(target="/_/ready"),
    Ask("DELETE", "/_/ready"),
    Ask(target="/a//b", differs=True),
    Ask(target="/a/../b", differs=True),
    Ask(target="/%00", differs=True),
    Ask(target="/%zz", differs=True),
    Ask("OPTIONS", "*", differs=True),
    Ask("FOO", differs=True),
    Ask(fields=("Proxy: http://evil",), differs=True),
    Ask(fields=("Query: no=1",), differs=True),
    Ask(fields=("x_under: 1", "We'ird: 1"), differs=True),
]


@dataclass
class Group:
    """``asked`` of a watchdog with these variables; ``held``: while it runs one that has not ended.
    FUNCTION stands for the function."""

    variables: Mapping[str, str]
    asked: Sequence[Ask]
    held: bool = False
    files: Mapping[str, bool] = field(default_factory=dict)


PLAIN = {"fprocess": "/bin/sh FUNCTION a  c"}
SERIALIZING = {**PLAIN, "mode": "serializing"}
GROUPS = {
    "streaming": Group(PLAIN, ASKED),
    "serializing": Group(SERIALIZING, ASKED),
    "function_process": Group(
        {**PLAIN, "function_process": "cat", "content_type": "application/json; x"},
        [post("/", b"{}"), Ask(target="/exit/3")],
    ),
    "deadline": Group({**PLAIN, "exec_timeout": "300ms"}, [Ask(target="/sleep")]),
    "serializing deadline": Group(
        {**SERIALIZING, "exec_timeout": "300ms"}, [Ask(target="/sleep"), Ask("HEAD", "/sleep")]
    ),
    "full": Group(
        {**PLAIN, "max_inflight": "1"},
        [Ask(), Ask("HEAD"), post("/", b"x"), Ask(target="/_/ready"), Ask(target="/_/health")],
        held=True,
    ),
    "not full": Group(
        {**SERIALIZING, "max_inflight": "2", "read_timeout": "1m0s", "write_timeout": "65"},
        [Ask(), Ask(target="/_/ready")],
        held=True,
    ),
    "is ready": Group({**PLAIN, "ready_path": "/stderr"}, [Ask(target="/_/ready")]),
    "is not ready": Group(
        {**SERIALIZING, "ready_path": "/exit/1"},
        [Ask(target="/_/ready"), Ask("POST", "/_/ready"), Ask(target="/_/health")],
    ),
    "empty": Group(
        {**PLAIN, "mode": "", "exec_timeout": "", "write_timeout": "", "content_type": "a/b"},
        [Ask()],
    ),
    "no lock": Group(
        {**PLAIN, "suppress_lock": "true"},
        [Ask(), Ask(target="/_/health", differs=True), Ask(target="/_/ready", differs=True)],
    ),
}
FRAMING = ("date", "server", "keep-alive", "connection", "content-length", "transfer-encoding")
"""Fields that are not compared: who it is, and where an answer ends."""


@contextmanager
def watchdog(
    program: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """One that takes requests: the real one listens a while before."""
    function = folder / "function"
    function.write_text(FUNCTION)
    given = {name: text.replace("FUNCTION", str(function)) for name, text in variables.items()}
    environ = os.environ | {"TMPDIR": str(folder), "healthcheck_interval": "1ms"} | given
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(program, env=environ, stdout=said, stderr=said)
    try:
        # Ours listens before it is ready for a signal.
        sign = " serving " if program[0] == sys.executable else "Listening on port"
        poll(lambda: sign in said_in(folder) or process.poll() is not None, "a start")
        poll(lambda: listening() or process.poll() is not None, "listening")
        assert process.poll() is None, said_in(folder)
        if "suppress_lock" not in variables:  # which nothing makes well
            poll(lambda: answer(Ask(target="/_/health"))["status"] == 200, "health")
        yield process
        (folder / "go").touch()
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0, said_in(folder)
    finally:
        process.kill()
        process.wait()


def said_in(folder: Path) -> str:
    return (folder / "said").read_text()


def listening() -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", PORT)) == 0


def connect() -> Client:
    return Client(socket.create_connection(("127.0.0.1", PORT), BOUND))


def answer(ask: Ask) -> dict[str, Any]:
    """As far as it is compared."""
    with connect() as client:
        client.request(ask.method, ask.target, *ask.fields, body=ask.body)
        got = client.read_head()
        while got.status == 100:
            got = client.read_head()
        if ask.method != "HEAD":
            client.read_body(got)
        assert got.complete
    fields = {name: value for name, value in got.fields.items() if name not in FRAMING}
    if "x-duration-seconds" in fields:
        assert float(fields["x-duration-seconds"]) > 0
        fields["x-duration-seconds"] = "N"
    body = got.body.decode("latin-1")
    if len(body) > 2000:
        body = f"{len(body)} bytes, {hash_of(got.body)}"
    return {"status": got.status, "fields": dict(sorted(fields.items())), "body": body}


def hash_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def answers(program: Sequence[str], folder: Path, group: Group) -> list[dict[str, Any]]:
    """Of ``program``, which need not be the only one that uses its ports."""

    def work() -> list[dict[str, Any]]:
        with watchdog(program, folder, group.variables):
            if not group.held:
                return [answer(ask) for ask in group.asked]
            with connect() as holder:
                holder.get("/hold")
                poll((folder / "held").exists, "the one that holds")
                found = [answer(ask) for ask in group.asked]
                (folder / "go").touch()
                held = holder.read()
                assert (held.status, held.body) == (200, b"held\n")
                return found

    return apart(work)


def main() -> None:
    assert THEIRS is not None, "no of-watchdog"
    recorded = {}
    for name, group in GROUPS.items():
        with tempfile.TemporaryDirectory() as folder:
            recorded[name] = answers([THEIRS], Path(folder), group)
    lines = ",\n".join(
        f' "{name}": [\n' + ",\n".join(f"  {json.dumps(each)}" for each in found) + "\n ]"
        for name, found in recorded.items()
    )
    RECORDED.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
