"""Real programs and Python handlers as residents: each answers as by exec, and puts all back.

The residents are "checked": they compare their memory, mappings, descriptors, directory, umask,
mask, handlers and settings with what they were, after each request (csrc/guest/compare.c).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import needs
from programs import INPUTS, MAY_LEAVE, PROGRAMS, TEXT, folder, path_of, repository
from residents import (
    CHECKED,
    EFFECT,
    MAIN,
    Template,
    answer,
    by_exec,
    can_reset,
    same,
)

pytestmark = pytest.mark.skipif(not can_reset(), reason="no process can reset itself here")


# ---- programs ------------------------------------------------------------------------------------


def requests_of(name: str, at: Path) -> list[list[str]]:
    path = path_of(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    folder(at)
    if name == "git":
        repository(at)
    words = [[word.replace("@@", str(at)) for word in request] for request in PROGRAMS[name]]
    return [[path, *request] for request in words]


def check_requests(
    template: Template, requests: list[tuple[list[str], bytes]], told: bool, may_leave: bool
) -> None:
    """Again and again, each as by exec."""
    expected = [by_exec(command, text) for command, text in requests]
    resident = template.resident(CHECKED, told=told)
    for _ in range(2):
        for (command, text), wanted in zip(requests, expected, strict=True):
            outcome = resident.run(text, command)
            assert answer(outcome) == wanted, (command, outcome)
            if outcome.left is None:
                same(outcome)
            else:
                assert may_leave, f"{command} leaves before call {outcome.left}"
                resident = template.resident(CHECKED, told=told)


@pytest.mark.parametrize("name", PROGRAMS)
def test_at_main_each_with_its_own_arguments(tmp_path: Path, name: str) -> None:
    commands = requests_of(name, tmp_path / "files")
    requests = [*((command, INPUTS[0]) for command in commands), (commands[0], INPUTS[1])]
    with Template(commands[0], effect=MAIN) as template:
        check_requests(template, requests, told=True, may_leave=name in MAY_LEAVE)


@pytest.mark.parametrize("name", PROGRAMS)
def test_at_the_first_effect(tmp_path: Path, name: str) -> None:
    command = requests_of(name, tmp_path / "files")[0]
    requests = [(command, text) for text in (*INPUTS, b"")]
    with Template(command, effect=EFFECT) as template:
        check_requests(template, requests, told=False, may_leave=name in MAY_LEAVE)


def test_there_are_enough() -> None:
    """Of those that never leave."""
    assert sum(path_of(name) is not None for name in PROGRAMS.keys() - MAY_LEAVE) >= 40


# ---- Python at its checkpoint --------------------------------------------------------------------

MODULES = """
asyncio decimal email hashlib json logging os random re sqlite3 ssl subprocess tempfile threading
urllib.request zlib
""".split()
BELOW = """
from fastspawn import checkpoint
checkpoint()
text = sys.stdin.read()
"""

HANDLERS = {
    "json": "print(json.dumps(json.loads(json.dumps({'x': text, 'y': list(range(99))}))))",
    "asyncio": "async def f(n):\n  await asyncio.sleep(0.001)\n  return n\n"
    "async def main():\n"
    "  server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1')\n"
    "  port = server.sockets[0].getsockname()[1]\n"
    "  reader, writer = await asyncio.open_connection('127.0.0.1', port)\n"
    "  print(await reader.read(), await asyncio.gather(*map(f, range(9))))\n"
    "asyncio.run(main())",
    "tempfile": "with tempfile.TemporaryDirectory() as d, tempfile.TemporaryFile() as f:\n"
    "  open(d + '/x', 'w').write(text); f.write(b'x' * 9999); f.seek(9); print(len(f.read()))",
    "decimal": "decimal.getcontext().prec = 5; print(decimal.Decimal(1) / 3)",
    "logging": "logging.basicConfig(); logging.warning('w'); print(len(logging.root.handlers))",
    "sqlite3": "c = sqlite3.connect(':memory:'); c.execute('create table t (x)')\n"
    "c.executemany('insert into t values (?)', [(i,) for i in range(999)])\n"
    "print(c.execute('select sum(x) from t').fetchall())",
    "sqlite3 in a file": "with tempfile.TemporaryDirectory() as d:\n"
    "  c = sqlite3.connect(d + '/x'); c.execute('create table t (x)'); c.commit(); c.close()\n"
    "  print(os.listdir(d))",
    "ssl": "a, b = ssl.MemoryBIO(), ssl.MemoryBIO()\n"
    "tls = ssl.create_default_context().wrap_bio(a, b, server_hostname='x')\n"
    "try: tls.do_handshake()\n"
    "except ssl.SSLWantReadError: print(b.pending > 99, len(ssl.RAND_bytes(8)))",
    "re, email, zlib": "m = email.message_from_string('A: b\\n\\n' + text)\n"
    "print(m['A'], re.sub('p+', 'P', text), zlib.crc32(zlib.compress(text.encode())),"
    " hashlib.sha256(text.encode()).hexdigest())",
    "urllib": "print(urllib.request.urlopen('data:text/plain,' + 'x' * 99).read())",
    "spoil": "seen.append(2); print(seen, 'X' in os.environ, os.getcwd()); os.environ['X'] = '1'\n"
    "os.chdir('/'); sys.modules['seen'] = seen; big = [bytes(5000) for _ in range(2000)]\n"
    "random.seed(1); logging.root.setLevel(7); decimal.getcontext().prec = 3\n"
    "sys.setrecursionlimit(5000); sys.stdout.reconfigure(line_buffering=True); os.umask(0)",
    "raise": "raise ValueError('x')",
    "exit": "sys.exit(7)",
    "deep": "def f(n): return n and f(n - 1) + 1\nprint(f(900))",
    "threads": "t = [threading.Thread(target=print, args=(i,)) for i in range(1)]\n"
    "[x.start() for x in t]; [x.join() for x in t]; print(threading.active_count())",
    "subprocess": "print(subprocess.run(['cat'], input=text.encode(), capture_output=True).stdout)",
}
LEAVES = {"threads", "subprocess"}


def check_handler(program: Path, leaves: bool) -> None:
    command = [sys.executable, str(program)]
    expected = by_exec(command, TEXT)
    with Template(command, effect=MAIN, checkpoint=True) as template:
        resident = template.resident(CHECKED)
        for _ in range(3 if leaves else 10):
            outcome = resident.run(TEXT)
            assert answer(outcome) == expected
            assert (outcome.left is not None) == leaves
            if leaves:
                resident = template.resident(CHECKED)
            else:
                same(outcome)


@pytest.mark.parametrize("name", HANDLERS)
def test_python_at_its_checkpoint(tmp_path: Path, name: str) -> None:
    program = tmp_path / "program.py"
    below = HANDLERS[name]
    used = ", ".join(["sys", *(each for each in MODULES if each.split(".")[0] in below)])
    program.write_text(f"import {used}\nseen = [1]\n{BELOW}{below}\n")
    check_handler(program, name in LEAVES)


@needs.module("numpy")
def test_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread: a template that has more is none."""
    monkeypatch.setitem(os.environ, "OPENBLAS_NUM_THREADS", "1")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nimport numpy as np\na = np.arange(40000.0).reshape(200, 200)\n"
        + BELOW
        + "a += 1; "
        "b = np.array([len(text)] * 200); print((a @ a)[7, 9], np.linalg.norm(a @ b), a.sum(), "
        "np.sort(a, axis=None)[-1], np.fft.fft(b)[0], 0 < np.random.rand() < 1)\n"
    )
    check_handler(program, leaves=False)
