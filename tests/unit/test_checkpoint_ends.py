"""Ways in which a Python program can write and end: by exec, and by forks at its checkpoint."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import fastspawn
import needs
from fastspawn import Command, Engine, Limits, Result, Template
from support import BOUND, at_checkpoint

pytestmark = needs.templates

AT_ONCE = 4
PACKAGE = str(Path(fastspawn.__file__).parent)
ONLY_CHECKPOINT = f"""
__path__ = [{PACKAGE!r}]
from fastspawn._checkpoint import checkpoint
"""
"""The package, without what it imports and these programs do not need."""

TOP = "import sys, os, io\nfrom fastspawn import checkpoint\n"

TALKER = """
class Talker:
    def __init__(self, name, other=None):
        self.name, self.other = name, other
    def __del__(self):
        print("del", self.name)
"""

PROGRAMS: Mapping[str, str] = {
    # ---- where it writes to ----
    "print": "print('hi')",
    "no newline": "sys.stdout.write('hi')",
    "stderr": "sys.stderr.write('hi')",
    "bytes": "sys.stdout.buffer.write(b'hi')",
    "raw": "sys.stdout.buffer.raw.write(b'hi')",
    "os.write": "os.write(1, b'hi')",
    "nothing": "",
    "much": "sys.stdout.write('x' * 300_000)",
    "text over buffer": "out = io.TextIOWrapper(sys.stdout.buffer)\nout.write('hi')",
    "text over buffer above": "out = io.TextIOWrapper(sys.stdout.buffer)\n---\nout.write('hi')",
    "csv over buffer": "import csv\nout = csv.writer(io.TextIOWrapper(sys.stdout.buffer))\n---\n"
    "out.writerow([1, 2])",
    "csv over buffer below": "import csv\n"
    "out = csv.writer(io.TextIOWrapper(sys.stdout.buffer))\nout.writerow([1, 2])",
    "detached": "out = io.TextIOWrapper(sys.stdout.detach())\nout.write('hi')",
    "open(1)": "out = open(1, 'w')\nout.write('hi')",
    "open(1) above": "out = open(1, 'w')\n---\nout.write('hi')",
    "open(1), kept open": "out = open(1, 'w', closefd=False)\nout.write('hi')",
    "open(1) for bytes": "out = open(1, 'wb')\nout.write(b'hi')",
    "fdopen(1)": "out = os.fdopen(1, 'w')\nout.write('hi')",
    "fdopen(2)": "out = os.fdopen(2, 'w')\nout.write('hi')",
    "dup": "out = os.fdopen(os.dup(1), 'w')\nout.write('hi')",
    "/dev/stdout": "out = open('/dev/stdout', 'w')\nout.write('hi')",
    "dup above": "out = os.fdopen(os.dup(1), 'w')\n---\nout.write('hi')",
    "dup of stderr above": "out = os.fdopen(os.dup(2), 'w')\n---\nout.write('hi')",
    "dup above for a child": "copy = os.dup(1)\nos.set_inheritable(copy, True)\n---\n"
    "os.system(f'echo hi >&{copy}')",
    "/dev/stdout above": "out = open('/dev/stdout', 'w')\n---\nout.write('hi')",
    "its own pipe as stdout above": "r, w = os.pipe()\nkept = os.dup(1)\nos.dup2(w, 1)\n---\n"
    "os.dup2(kept, 1)\nos.write(w, b'hi')\nos.write(1, os.read(r, 9))",
    "gzip": "import gzip\nout = gzip.GzipFile(fileobj=sys.stdout.buffer, mode='w', mtime=0)\n"
    "out.write(b'hi')",
    "gzip text": "import gzip\n---\nraw = gzip.GzipFile('', 'wb', 9, sys.stdout.buffer, 0)\n"
    "out = io.TextIOWrapper(raw)\nout.write('hi')",
    "bz2": "import bz2\n---\nout = bz2.open(sys.stdout.buffer, 'w')\nout.write(b'hi')",
    "lzma": "import lzma\n---\nout = lzma.open(sys.stdout.buffer, 'wt')\nout.write('hi')",
    "zip": "import zipfile\n---\nout = zipfile.ZipFile(sys.stdout.buffer, 'w')\n"
    "out.writestr(zipfile.ZipInfo('name'), 'hi')",
    "in a function": "def main():\n    out = open(1, 'w')\n    out.write('hi')\nmain()",
    "in a list of a module": "import json\n---\njson.kept = [open(1, 'w')]\n"
    "json.kept[0].write('hi')",
    "in a closure": "def make():\n    out = open(1, 'w', closefd=False)\n"
    "    return lambda text: out.write(text)\nsay = make()\nsay('hi')",
    "with a function": "out = open(1, 'w', closefd=False)\nout.write('hi')\n"
    "def f(): pass",
    "a subclass with a close": "class Out(io.TextIOWrapper):\n    def close(self):\n"
    "        if not self.closed: self.write(' closed')\n        super().close()\n---\n"
    "out = Out(sys.stdout.buffer)\nout.write('hi')",
    "a raw one of its own": "class Raw(io.RawIOBase):\n    def writable(self): return True\n"
    "    def write(self, data): return os.write(1, bytes(data).upper())\n---\n"
    "out = io.TextIOWrapper(io.BufferedWriter(Raw()))\nout.write('hi')",
    "read and written": "import tempfile\nfile = tempfile.TemporaryFile('w+')\nfile.write('hi')\n"
    "file.seek(0)\nprint(file.read())",
    "written above": "out = open(1, 'w', closefd=False)\nprint('below', file=out)",
    "let go": "import tempfile\nname = tempfile.mktemp()\nout = open(name, 'w')\n---\n"
    "out = open(name, 'w')\nout.write('hi')\ndel out\nprint(open(name).read())\nos.unlink(name)",
    # ---- what it makes of sys.stdout ----
    "closed": "print('hi')\nsys.stdout.close()",
    "closed early": "sys.stdout.close()\nprint('hi')",
    "closed beneath": "print('hi')\nos.close(1)",
    "stderr closed beneath": "os.close(2)\nprint('hi')\nraise ValueError",
    "none": "print('hi')\nsys.stdout = None",
    "deleted": "print('hi')\ndel sys.stdout",
    "replaced by StringIO": "print('hi')\nsys.stdout = io.StringIO()\nprint('lost')",
    "replaced by text": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-16')\n"
    "print('hi')",
    "replaced by text above": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'latin-1')\n---\n"
    "print('h\\xef')",
    "replaced by open": "sys.stdout = open(1, 'w')\nprint('hi')",
    "replaced by a class": "class Out:\n"
    "    def write(self, text): os.write(1, text.upper().encode())\n"
    "    def flush(self): pass\nsys.stdout = Out()\nprint('hi')",
    "a flush that fails": "class Out:\n    def write(self, text): os.write(1, text.encode())\n"
    "    def flush(self): raise OSError('no')\nsys.stdout = Out()\nprint('hi')",
    "redirected": "import contextlib\nprint('one')\n"
    "with contextlib.redirect_stdout(io.StringIO()): print('two')\nprint('three')",
    "reconfigured": "sys.stdout.reconfigure(encoding='utf-16', newline='\\r\\n')\nprint('hi')",
    "reconfigured above": "sys.stdout.reconfigure(newline='\\r\\n', line_buffering=True)\n---\n"
    "print('hi')",
    "two that are one": "os.dup2(1, 2)\nsys.stderr.write('err')\nsys.stdout.write('out')",
    "two that are one, and logging": "import logging\n---\nos.dup2(1, 2)\n"
    "sys.stdout.write('out')\nsys.stderr.write('err')",
    "what cannot be encoded": "sys.stdout.reconfigure(encoding='ascii')\nprint('\\xe4')",
    "nobody reads": "r, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)\nprint('hi')",
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\nprint('hi')",
    "full, another": "out = open('/dev/full', 'w')\nout.write('hi')\nprint('hi')",
    "full stderr": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\nsys.stderr.write('hi')",
    "C's stdout": "import ctypes\n---\nctypes.CDLL(None).printf(b'hi')",
    # ---- how it ends: status ----
    **{
        f"sys.exit({code})": f"print('hi')\nsys.exit({code})"
        for code in (
            "", "None", "0", "1", "3", "255", "256", "-1", "2**31", "-2**31 - 1", "2**63 - 1",
            "2**70", "-2**70", "True", "False", "1.5", "'text'", "''", "b'bytes'", "('bad', 3)",
            "()", "(3,)", "[1]", "object", "ValueError('of this')", "SystemExit(4)", "KeyError",
        )
    },
    "sys.exit(IntEnum)": "import enum\nclass E(enum.IntEnum):\n    A = 5\nsys.exit(E.A)",
    "sys.exit(str of its own)": "class S:\n    def __str__(self):\n        print('asked')\n"
    "        return 'S'\nsys.exit(S())",
    "sys.exit(a str that fails)": "class S:\n    def __str__(self): 1 / 0\nsys.exit(S())",
    "sys.exit(an int of its own)": "class I(int):\n    def __int__(self): return 9\nsys.exit(I(7))",
    "exit()": "exit(3)",
    "quit('text')": "quit('text')",
    "SystemExit": "raise SystemExit",
    "SystemExit(1, 2)": "raise SystemExit(1, 2)",
    "a subclass": "class E(SystemExit): pass\nraise E(6)",
    "a subclass above": "class E(SystemExit): pass\n---\nraise E(6)",
    "a subclass with a code": "class E(SystemExit): code = 8\nraise E(6)",
    "a subclass with a property": "class E(SystemExit):\n    @property\n    def code(self):\n"
    "        print('asked')\n        return 8\nraise E(6)",
    "a code that is changed": "try: sys.exit(3)\nexcept SystemExit as e:\n"
    "    e.code = 4\n    raise",
    "code that fails": "class E(SystemExit):\n    @property\n    def code(self): 1 / 0\nraise E(6)",
    "caught": "try: sys.exit(3)\nexcept SystemExit: print('caught')",
    "caught, then another": "try: sys.exit(3)\nexcept SystemExit: pass\nsys.exit(4)",
    "caught, then an exception": "try: sys.exit(3)\nexcept SystemExit: pass\nraise ValueError(1)",
    "an older one": "try: sys.exit(3)\nexcept SystemExit as e: old = e\n"
    "try: sys.exit(4)\nexcept SystemExit: pass\nraise old",
    "one from above": "try: sys.exit(3)\nexcept SystemExit as e: old = e\n---\nraise old",
    "in a loop": "for i in range(3):\n    try: sys.exit(i)\n    except SystemExit:\n"
    "        if i == 2: raise",
    "exit while handling": "try: 1 / 0\nexcept ZeroDivisionError: sys.exit(3)",
    "exit in finally": "try: 1 / 0\nfinally: sys.exit(3)",
    "exit in a function": "def main(): sys.exit(3)\nmain()",
    "sys.exit(main())": "def main(): return 3\nsys.exit(main())",
    "os._exit": "print('lost')\nos._exit(3)",
    "abort": "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nos.abort()",
    "SIGTERM": "import signal\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()",
    "SIGKILL": "print('lost')\nimport signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "SIGINT": "import signal\nsignal.raise_signal(signal.SIGINT)",
    "a handler that exits": "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    "signal.raise_signal(signal.SIGTERM)",
    "a handler from above": "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\n"
    "---\nsignal.raise_signal(signal.SIGUSR1)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "an exception": "print('hi')\nraise ValueError('bad')",
    "a cause": "try: 1 / 0\nexcept Exception as e: raise ValueError('bad') from e",
    "BaseException": "raise BaseException('bad')",
    "GeneratorExit": "raise GeneratorExit",
    "recursion": "sys.setrecursionlimit(100)\ndef f(): f()\nf()",
    "a syntax error": "exec('x y')",
    "BrokenPipeError": "raise BrokenPipeError",
    "an exception without words": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
    "excepthook": "sys.excepthook = lambda *a: print('hook', a[1])\nraise ValueError(1)",
    "excepthook that exits": "sys.excepthook = lambda *a: sys.exit(5)\nraise ValueError(1)",
    "excepthook that fails": "def hook(*a): 1 / 0\nsys.excepthook = hook\nraise ValueError(1)",
    "excepthook above": "sys.excepthook = lambda *a: print('hook', a[1])\n---\nraise ValueError(1)",
    "last_value of old": "sys.last_value = sys.last_exc = ValueError(1)",
    # ---- what else is done at the end ----
    "atexit": "import atexit\natexit.register(print, 'bye')\nprint('hi')",
    "atexit, order": "import atexit\nfor i in range(3): atexit.register(print, i)",
    "atexit that fails": "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 1)",
    "atexit that exits": "import atexit\natexit.register(sys.exit, 3)\natexit.register(print, 1)",
    "atexit after an exception": "import atexit\natexit.register(print, 'bye')\nraise ValueError",
    "atexit writes": "import atexit\nout = open(1, 'w', closefd=False)\n"
    "atexit.register(out.write, 'hi')",
    "atexit ends it": "import atexit\natexit.register(os._exit, 9)\nprint('lost')",
    "atexit run by itself": "import atexit\natexit.register(print, 'bye')\n"
    "atexit._run_exitfuncs()\n"
    "out = open(1, 'w', closefd=False)\nout.write('hi')",
    "__del__": TALKER + "a = Talker('a')",
    "__del__, of a class from above": TALKER + "---\na = Talker('a')",
    "__del__, several": TALKER + "a, b = Talker('a'), Talker('b')\nc = Talker('c', b)",
    "__del__, in a cycle": TALKER + "a = Talker('a')\na.other = Talker('b', a)\ndel a",
    "__del__, in a module": TALKER + "import json\n---\njson.kept = Talker('a')",
    "__del__, exit": TALKER + "a = Talker('a')\nsys.exit(3)",
    "__del__, exception": TALKER + "a = Talker('a')\nraise ValueError",
    "__del__, in a frame": TALKER + "def f():\n    a = Talker('a')\n    sys.exit(3)\nf()",
    "__del__, early": TALKER + "a = Talker('a')\ndel a\nprint('hi')",
    "__del__, twice": TALKER + "a = Talker('a')\na.__del__()",
    "__del__ that fails": "class A:\n    def __del__(self): 1 / 0\na = A()",
    "__del__ that writes elsewhere": "class A:\n    def __init__(self): self.out = open(1, 'w')\n"
    "    def __del__(self): self.out.close()\na = A()\na.out.write('hi')",
    "__del__ that exits": "class A:\n    def __del__(self): sys.exit(3)\na = A()",
    "a generator's finally": "def g():\n    try: yield\n    finally: print('finally')\na = g()\n"
    "next(a)",
    "a generator from above": "def g():\n    try: yield 1\n    finally: print('finally')\n---\n"
    "for i in (a := g()): break",
    "a context in a generator": "import contextlib\n@contextlib.contextmanager\ndef c():\n"
    "    print('in')\n    try: yield\n    finally: print('out')\na = c()\na.__enter__()",
    "a coroutine": "async def c(): pass\na = c()",
    "weakref.finalize": "import weakref\nclass A: pass\na = A()\n"
    "weakref.finalize(a, print, 'finalized')",
    "weakref.finalize, used above": "import weakref\nclass A: pass\nb = A()\n"
    "weakref.finalize(b, print).atexit = False\n---\na = A()\nweakref.finalize(a, print, 'below')",
    "a temporary file": "import tempfile\nfile = tempfile.NamedTemporaryFile('w')\n"
    "file.write('hi')\nprint(os.path.exists(file.name))",
    "a temporary directory": "import tempfile\nd = tempfile.TemporaryDirectory()\n"
    "print(os.path.isdir(d.name))",
    "a thread": "import threading\nt = threading.Thread(target=print, args=('hi',))\nt.start()",
    "a thread that is waited for": "import threading\ne = threading.Event()\n"
    "def f():\n    e.wait()\n    print('thread')\nthreading.Thread(target=f).start()\n"
    "print('main')\nsys.stdout.flush()\ne.set()",
    "a thread and an exit": "import threading\ne = threading.Event()\n"
    "def f():\n    e.wait()\n    print('thread')\nthreading.Thread(target=f).start()\ne.set()\n"
    "sys.exit(3)",
    "a thread that fails": "import threading\ndef f(): 1 / 0\n"
    "t = threading.Thread(target=f, name='T')\nt.start()\nt.join()",
    "a thread that exits": "import threading\nt = threading.Thread(target=sys.exit, args=(3,))\n"
    "t.start()\nt.join()",
    "a daemon": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True)."
    "start()\nprint('hi')",
    "a thread's exit handler": "import threading\n---\nthreading._register_atexit(print, 'hi')",
    "an exit handler that asks for threads": "import atexit, threading\n---\n"
    "atexit.register(lambda: print(threading.main_thread().is_alive()))",
    "an end of threads of its own": "import threading\n---\n"
    "end = threading._shutdown\nthreading._shutdown = lambda: (print('ends'), end())",
    "threads ended by itself": "import threading\n---\nthreading._shutdown()\nprint('hi')",
    "an executor": "from concurrent.futures import ThreadPoolExecutor\ne = ThreadPoolExecutor(2)\n"
    "e.submit(print, 'hi')",
    "an executor, imported above": "from concurrent.futures import ThreadPoolExecutor\n---\n"
    "e = ThreadPoolExecutor(2)\ne.submit(print, 'hi')",
    "logging": "import logging\nlogging.basicConfig(level=10)\nlogging.info('hi')",
    "logging above": "import logging\nlogging.basicConfig(level=10)\n---\nlogging.info('hi')",
    "logging, held": "import logging, logging.handlers\n"
    "h = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))\n"
    "logging.getLogger().addHandler(h)\nlogging.warning('hi')",
    "logging, held above": "import logging, logging.handlers\n"
    "h = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))\n"
    "logging.getLogger().addHandler(h)\n---\nlogging.warning('hi')",
    "logging, of last resort": "import logging\n---\nlogging.warning('hi')",
    "logging, another of last resort": "import logging\n---\n"
    "logging.lastResort.close = lambda: print('closed')",
    "logging, another class": "import logging\n---\n"
    "logging.StreamHandler.flush = lambda self: print('flushed')",
    "logging, another shutdown": "import logging, atexit\n---\n"
    "atexit.unregister(logging.shutdown)\natexit.register(print, 'bye')",
    "subprocess": "import subprocess\nprint('one', flush=True)\n"
    "print(subprocess.run(['echo', 'two'], stdout=subprocess.PIPE, text=True).stdout)",
    "subprocess, its input": "import subprocess\n---\n"
    "p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, text=True)\nprint('hi', file=p.stdin)\n"
    "p.stdin.close()\np.wait()",
    "fork": "sys.stdout.flush()\npid = os.fork()\nif pid == 0:\n    print('child')\n"
    "    sys.exit(4)\n"
    "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
    "fork and threads": "import threading, logging, warnings\n"
    "warnings.simplefilter('ignore')  # of threads and fork\n---\n"
    "wait = threading.Event()\nthread = threading.Thread(target=wait.wait)\nthread.start()\n"
    "pid = os.fork()\nif pid == 0:\n"
    "    print(threading.active_count(), threading.current_thread().name)\n"
    "    logging.warning('child')\n    sys.exit(4)\n"
    "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nwait.set()",
    "fork and buffers": "sys.stdout.write('both ')\npid = os.fork()\nif pid: os.waitpid(pid, 0)",
    "multiprocessing": "import multiprocessing as m\n---\nc = m.get_context('fork')\n"
    "p = c.Process(target=print, args=('hi',))\np.start()\np.join()\nprint(p.exitcode)",
    "multiprocessing, unwaited": "import multiprocessing as m\n---\n"
    "m.get_context('fork').Process(target=print, args=('hi',)).start()",
    "asyncio": "import asyncio\n---\nasync def main():\n    await asyncio.sleep(0)\n"
    "    print(await asyncio.to_thread(len, 'hi'))\nasyncio.run(main())",
    "asyncio, exit": "import asyncio\n---\nasync def main(): sys.exit(3)\nasyncio.run(main())",
    "asyncio, exception": "import asyncio\n---\nasync def main(): raise ValueError\n"
    "asyncio.run(main())",
    "asyncio, a loop that stays": "import asyncio\n---\nloop = asyncio.new_event_loop()\n"
    "print(loop.run_until_complete(asyncio.sleep(0, 'hi')))",
    "asyncio, a task that stays": "import asyncio\n---\nasync def f():\n    try:\n"
    "        await asyncio.sleep(99)\n    finally: print('finally')\n"
    "async def main():\n    global task\n    task = asyncio.ensure_future(f())\n"
    "    await asyncio.sleep(0)\nasyncio.run(main())",
    "contextvars": "import contextvars\nv = contextvars.ContextVar('v', default=1)\nv.set(2)\n---\n"
    "print(v.get())",
    "contextvars below": "import contextvars\nv = contextvars.ContextVar('v')\n"
    "v.set(open(1, 'w'))\n"
    "v.get().write('hi')",
    "unraisablehook": "sys.unraisablehook = lambda u: print('hook', u.exc_type.__name__)\n"
    "class A:\n    def __del__(self): 1 / 0\na = A()\ndel a",
    "faulthandler": "import faulthandler\nfaulthandler.enable()\nprint('hi')",
    "faulthandler and SIGSEGV": "import faulthandler, resource, signal\n"
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nfaulthandler.disable()\n"
    "signal.raise_signal(signal.SIGSEGV)",
    "warnings": "import warnings\nwarnings.warn('hi')",
    "gc off": TALKER + "import gc\ngc.disable()\na = Talker('a')",
    "gc off above": TALKER + "import gc\ngc.disable()\n---\na = Talker('a')\nsys.exit(3)",
    "a callback of the collector": "import gc\ngc.callbacks.append(lambda *a: os.write(1, b'hi'))",
    "gc callbacks": "import gc\ngc.callbacks.clear()\nprint('hi')\nsys.exit(3)",
    "atexit cleared": "import atexit\natexit._clear()\nprint('hi')\nsys.exit(3)",
    "__main__ gone": "print('hi')\ndel sys.modules['__main__']",
    "modules gone": "print('hi')\nsys.modules.clear()",
    "a profile that tells": "import threading, logging\n---\n"
    "def tell(frame, event, arg):\n    name = frame.f_code.co_name\n"
    "    if event == 'call' and 'shutdown' in name: os.write(1, name.encode())\n"
    "sys.setprofile(tell)",
    "trace": "sys.settrace(lambda *a: None)\nprint('hi')\nsys.exit(3)",
    "profile": "sys.setprofile(lambda *a: None)\nprint('hi')",
    "threads' local": "import threading\nl = threading.local()\n" + TALKER + "l.a = Talker('a')",
    "sqlite": "import sqlite3\n---\nc = sqlite3.connect(':memory:')\n"
    "print(c.execute('select 1').fetchone())",
    "input()": "print(input())",
    "argv": "print(len(sys.argv), sys.argv[1:])",
    "shelve": "import shelve, tempfile\n---\nd = tempfile.mkdtemp()\ns = shelve.open(d + '/s')\n"
    "s['a'] = 1\ns.close()\nprint(dict(shelve.open(d + '/s')))\nimport shutil\nshutil.rmtree(d)",
}  # fmt: skip


LOST_BY_EXEC: Mapping[str, str] = {
    "in a cycle": "class A: pass\na = A()\na.a = a\na.out = open(1, 'w', closefd=False)\n"
    "a.out.write('hi')\ndel a",
}  # fmt: skip

ALL = {**PROGRAMS, **LOST_BY_EXEC}


class Answers(NamedTuple):
    by_exec: Result
    first: Result
    later: Result


def program(text: str) -> str:
    above, _, below = text.rpartition("---\n")
    return f"{TOP}{above}\ncheckpoint()\n{below}\n"


async def answer(engine: Engine, path: Path) -> Answers:
    argv = [sys.executable, path, "an argument"]
    env = dict(os.environ, PYTHONPATH=str(path.parent))
    command = Command(argv, env=env, limits=Limits(timeout=BOUND))
    by_exec = await engine.run(command, b"a line\n")
    async with Template(command, size=1) as template:

        async def ask() -> Result:
            return await template.run(input=b"a line\n")

        first, _, later = await at_checkpoint(template, ask), await ask(), await ask()
        assert template.stats["checkpoints"] == 1
        assert template.stats["direct"] == 0
    return Answers(by_exec, first, later)


async def answer_all(folder: Path) -> dict[str, Answers]:
    (folder / "fastspawn").mkdir()
    (folder / "fastspawn/__init__.py").write_text(ONLY_CHECKPOINT)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(engine: Engine, number: int, text: str) -> Answers:
        path = folder / f"{number}.py"
        path.write_text(program(text))
        async with turn:
            return await answer(engine, path)

    async with Engine(1) as engine:
        tasks = [one(engine, number, text) for number, text in enumerate(ALL.values())]
        return dict(zip(ALL, await asyncio.gather(*tasks), strict=True))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    return asyncio.run(answer_all(tmp_path_factory.mktemp("ends")))


def seen(result: Result) -> tuple[int, bytes, bytes]:
    """What a client sees; where objects are is chance."""
    stderr = re.sub(rb"0x[0-9a-f]+", b"0x", result.stderr)
    return result.returncode, result.stdout, re.sub(rb"coroutine '\w+'", b"coroutine", stderr)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_as_by_exec(answers: dict[str, Answers], name: str) -> None:
    by_exec, first, later = map(seen, answers[name])
    assert first == by_exec
    assert later == by_exec


@pytest.mark.parametrize("name", LOST_BY_EXEC)
def test_more_than_by_exec(answers: dict[str, Answers], name: str) -> None:
    """What the collector loses, which may close the descriptor first."""
    by_exec, first, later = map(seen, answers[name])
    assert by_exec[0] == first[0] == later[0] == 0
    assert first[1] == later[1] == b"hi"
