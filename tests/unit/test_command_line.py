"""``fastspawn COMMAND``: what finds the commands, and what it costs."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import fastspawn
from fastspawn import snapshot
from fastspawn._cli import COMMANDS, explain
from fastspawn.serve.config.options import OPTIONS
from manual import PAGE, made

PACKAGE = Path(fastspawn.__file__).parent


def fastspawn_(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastspawn", *args],
        **{"capture_output": True, "text": True, "timeout": 60, **options},
    )


def test_it_is_installed() -> None:
    """As a program of its own, which does what ``python -m fastspawn`` does."""
    (found,) = distribution("fastspawn").entry_points.select(
        group="console_scripts", name="fastspawn"
    )
    main = found.load()
    assert main is sys.modules["fastspawn.__main__"].main
    code = f"import sys; sys.argv[1:] = ['--version']; from {found.module} import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"fastspawn {fastspawn.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    """Each is listed, and tells of itself: in black and white, where nobody sees colours."""
    assert f"  {name} " in fastspawn_("--help").stdout
    done = fastspawn_(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "a command is expected"),
        (["serv"], "unknown command: serv: did you mean serve?"),
        (["xyzzy"], "unknown command: xyzzy\n"),
        (["--xyzzy"], "unknown option: --xyzzy\n"),
        ([""], "unknown command: \n"),
        *([[name, "--xyzzy"], "error: "] for name in COMMANDS),
    ],
)
def test_mistyped(args: list[str], why: str) -> None:
    done = fastspawn_(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        ("sh -c x", ["sh", "-c", "x"]),
        ("-- sh -c x", ["sh", "-c", "x"]),
        ("--rounds 3 --timeout .5 true --rounds", ["true", "--rounds"]),
        ("--rounds 1e3 true", None),
        ("--rounds -1 true", None),
        ("--timeout nan true", None),
        ("--timeout 0 true", None),
    ],
)
def test_explain_takes_a_command_as_run_does(
    words: str, argv: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[str]] = []
    monkeypatch.setattr(snapshot, "_explain", lambda argv, options: taken.append(argv))
    with contextlib.nullcontext() if argv else pytest.raises(SystemExit):
        explain.main(words.split())
    assert taken == ([argv] if argv else [])


def imported_by(code: str) -> set[str]:
    # Without site: a venv's own files may import anything.
    path = os.pathsep.join([str(PACKAGE.parent), *site.getsitepackages()])
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    return set(done.stderr.split())


def test_serve_imports_what_the_server_does() -> None:
    run = "import sys; sys.argv[1:] = {args}\ntry: {main}()\nexcept SystemExit: pass"
    ours = imported_by(
        "from fastspawn.__main__ import main\n" + run.format(args=["serve", "--help"], main="main")
    )
    theirs = imported_by(
        "from fastspawn.serve.__main__ import main\n" + run.format(args=["--help"], main="main")
    )
    assert ours - theirs == {"fastspawn.__main__", "fastspawn._cli"}


# ---- completion and the manual page ----

BASH = """
eval "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
function=$(complete -p fastspawn | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function fastspawn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSHRC = r"""
PROMPT=
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "$@"; return }
    typeset -a found
    builtin compadd -A found "$@"
    builtin compadd "$@"
    print -rl -- "<found>"$^found
}
comppostfuncs=(completed)
completed() { print "<completed>"; exit }
bindkey "^I" complete-word
print "<ready>"
"""


def completed_by_bash(script: str, words: Sequence[str], tmp_path: Path) -> list[str]:
    argv = ["bash", "-c", BASH, "bash", script, "fastspawn", *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


def completed_by_fish(script: str, words: Sequence[str], tmp_path: Path) -> list[str]:
    (tmp_path / "fastspawn.fish").write_text(script)
    line = " ".join(("fastspawn", *words))
    asked = f"source {tmp_path / 'fastspawn.fish'}; complete -C '{line}'"
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked], capture_output=True, text=True, env=env
    )
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


def completed_by_zsh(script: str, words: Sequence[str], tmp_path: Path) -> list[str]:
    """At a terminal, as it completes nowhere else: with a key."""
    (tmp_path / "_fastspawn").write_text(script)
    (tmp_path / ".zshrc").write_text(ZSHRC)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"ZDOTDIR": str(tmp_path), "TERM": "dumb"}
        os.execvp("zsh", ["zsh", "-i"])
    try:
        read_until(fd, b"<ready>")
        os.write(fd, " ".join(("fastspawn", *words)).encode() + b"\t")
        said = read_until(fd, b"<completed>").decode()
    finally:
        os.close(fd)
        os.waitpid(pid, 0)
    return re.findall(r"<found>([^\r\n]+)", said)


def read_until(fd: int, mark: bytes) -> bytes:
    said = b""
    while mark not in said:
        piece = os.read(fd, 4096)
        assert piece, said
        said += piece
    return said


COMPLETED = {"bash": completed_by_bash, "zsh": completed_by_zsh, "fish": completed_by_fish}


@pytest.mark.parametrize("shell", COMPLETED)
def test_completion(shell: str, tmp_path: Path) -> None:
    """Commands, options, and what they may be: words, limits, files, users, programs."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    made = fastspawn_("completion", shell)
    assert (made.returncode, made.stderr) == (0, "")
    (tmp_path / "folder").mkdir()
    near = f"{tmp_path}/fol"
    for words, expected in (
        (["do"], {"doctor"}),
        ([""], set(COMMANDS)),
        (["serve", "--max-inflight-"], {"--max-inflight-total"}),
        (["serve", "--strategy", "re"], {"reset"}),
        (["serve", "--workers", "2", "--mode", ""], {"raw", "cgi", "ws", "jsonrpc"}),
        (["serve", "--snapshot-at", ""], {"auto", "main", "effect", "checkpoint", "imports"}),
        (["serve", "--rlimit", "nofi"], {"nofile=", "nofile=unlimited"}),
        (["run", "--rlimit", "stac"], {"stack=", "stack=unlimited"}),
        (["serve", "--user", "roo"], {"root"}),
        (["serve", "--cwd", near], {"folder"}),
        (["serve", "--config", near], {"folder"}),
        (["serve", "getcon"], {"getconf"}),
        (["run", "getcon"], {"getconf"}),
        (["explain", "--snapshot-at", "ch"], {"checkpoint"}),
        (["doctor", "--strategy", "re"], {"reset"}),
        (["completion", "zs"], {"zsh"}),
    ):
        found = COMPLETED[shell](made.stdout, words, tmp_path)
        names = {each.rstrip("/").rpartition("/")[2] for each in found}
        assert names >= expected if words == [""] else names == expected, words


def test_completion_without_its_library(tmp_path: Path) -> None:
    (tmp_path / "shtab.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    done = fastspawn_("completion", "bash", env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fastspawn completion: needs shtab: pip install 'fastspawn[completion]'\n"
    )


def test_manual_page() -> None:
    """It is what `make manual` makes, whose words depend a little on Python's argparse."""
    text = PAGE.read_text()
    for name in COMMANDS:
        assert f"fastspawn {name}" in text
    for name in OPTIONS:
        assert r"\-\-" + name.replace("-", r"\-") in text, name
    if sys.version_info[:2] == (3, 11):
        assert text == made(), "run make manual"


def test_what_work_shares_with_serve_is_said_as_it_is_there() -> None:
    """No message fills a placeholder."""
    from fastspawn._cli import work

    assert "placeholder" not in work.parser().format_help()
