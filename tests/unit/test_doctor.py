"""``fastspawn doctor``, on this kernel and on what is left of it by filters of system calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

import needs

CHILDREN = Path(__file__).parents[1] / "children"
REFUSE_CALL = (sys.executable, str(CHILDREN / "refuse_call.py"))
STRATEGIES = ["direct", "warm", "pool", "snapshot", "effect", "checkpoint", "reset"]


def doctor(*args: str, prefix: tuple[str, ...] = (), **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "fastspawn", "doctor", *args],
        **{"capture_output": True, "text": True, "timeout": 200, **options},
    )
    return done.returncode, done.stdout, done.stderr


def found(*args: str, prefix: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    status, out, err = doctor("--json", *args, prefix=prefix)
    assert err == ""
    return status, json.loads(out)


def missing(data: dict[str, Any]) -> set[str]:
    return {name for name, feature in data["features"].items() if not feature["works"]}


def usable(data: dict[str, Any]) -> list[str]:
    return [name for name, each in data["strategies"].items() if each["works"]]


def test_here() -> None:
    status, data = found()
    assert status == 0
    assert list(data["strategies"]) == STRATEGIES
    assert {"direct", "warm", "pool"} <= set(usable(data))
    for name, feature in data["features"].items():
        assert feature["works"] == (feature["why"] is None), name
        assert feature["works"] == (feature["advice"] is None), name
    for name in usable(data):  # what is needed is needed
        needed = {each for each, f in data["features"].items() if name in f["needed_by"]}
        assert not needed & missing(data) or name == "effect"


def test_each_extra_is_named() -> None:
    """And only such as there are."""
    _, data = found()
    installs = {each["install"] for each in data["extras"].values()}
    extras = metadata("fastspawn").get_all("Provides-Extra") or []
    assert installs == {"pip install 'uvloop'", *(f"pip install 'fastspawn[{x}]'" for x in extras)}


@needs.filters
def test_old_kernel() -> None:
    """No clone3 and no pidfd_open: what is started by a clone has a pidfd all the same."""
    status, data = found(prefix=(*REFUSE_CALL, "435,434,424"))
    assert status == 0
    assert missing(data) - missing(found("--strategy", "direct")[1]) == {"clone3", "pidfd"}
    assert data["strategies"]["direct"]["how"] == "by clone"
    assert data["strategies"]["direct"]["missing"] == ["clone3", "pidfd"]
    assert data["features"]["clone3"]["why"] == os.strerror(38)
    assert "seccomp" in data["features"]["clone3"]["advice"]
    assert usable(data) == ["direct", "warm", "pool", "snapshot", "effect"]
    for name in ("checkpoint", "reset"):
        assert "pidfd" in data["strategies"][name]["missing"]
    assert "no pidfd_open(2)" in data["strategies"]["checkpoint"]["why"]
    assert "it cannot be reset here: Function not" in data["strategies"]["reset"]["why"]


# Of Docker's default profile (github.com/moby/profiles, seccomp/default.json), for who has no
# capabilities: what of its refusals matters, and some of those that do not.
LIKE_DOCKER = "435=38,323=1,438=1,272=1,308=1,165=1,321=1,298=1,250=1"


@needs.filters
def test_like_docker() -> None:
    status, data = found(prefix=(*REFUSE_CALL, LIKE_DOCKER))
    assert status == 0
    assert data["surroundings"]["seccomp"].startswith("filter")
    assert {"clone3", "userfaultfd"} <= missing(data)
    assert usable(data) == STRATEGIES
    assert data["strategies"]["direct"]["missing"] == ["clone3"]
    assert "userfaultfd" in data["strategies"]["reset"]["missing"]
    assert data["features"]["userfaultfd"]["errno"] == 1


@needs.filters
def test_without_dispatch_and_userfaultfd() -> None:
    prefix = (*REFUSE_CALL, "157/0/59,323")
    status, data = found("--strategy", "reset", prefix=prefix)
    assert status == 1
    assert {"Syscall User Dispatch", "userfaultfd"} <= missing(data)
    assert usable(data) == []
    assert data["strategies"]["reset"]["missing"][:1] == ["Syscall User Dispatch"]
    status, out, err = doctor(prefix=prefix)
    assert (status, err) == (0, "")
    words = {line.split("  ")[2].strip(): line[:4].strip() for line in lines_of(out)}
    assert words["reset"] == words["snapshot at the first effect"] == "no"
    assert words["direct"] == words["snapshot (at main)"] == words["pool"] == "ok"
    assert "needs Syscall User Dispatch" in out
    assert "a seccomp filter refuses it" in out.lower()


def lines_of(out: str) -> list[str]:
    """Of what works and what does not."""
    return [line for line in out.splitlines() if re.match(r"  (ok|no|--)  ", line)]


@needs.filters
def test_who_calls_is_ended() -> None:
    """A filter may kill: it hits the trial, and not the doctor."""
    status, data = found("--strategy", "direct", prefix=(*REFUSE_CALL, "323=kill"))
    assert status == 0
    assert data["features"]["userfaultfd"]["why"] == "whoever calls it is ended (SIGSYS)"


@pytest.mark.parametrize(
    ("args", "why"),
    [(["--strategy", "fast"], "'fast'"), (["x"], "unrecognized arguments: x")],
)
def test_wrong_arguments(args: list[str], why: str) -> None:
    status, out, err = doctor(*args)
    assert (status, out) == (2, "")
    assert why in err
    assert "Traceback" not in err


def test_colours() -> None:
    """For a terminal alone, and who asks."""
    environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    args = ("--strategy", "direct")
    assert "\x1b" not in doctor(*args, env=environ)[1]
    assert "\x1b[32mok" in doctor(*args, env={**environ, "FORCE_COLOR": "1"})[1]
    assert "\x1b" not in doctor(*args, env={**environ, "FORCE_COLOR": "1", "NO_COLOR": "1"})[1]
