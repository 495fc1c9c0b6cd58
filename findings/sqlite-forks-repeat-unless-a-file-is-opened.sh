#!/bin/sh
# SQLite 3.54.1 (apsw 3.54.1.0): random(), randomblob() and sqlite3_randomness() are the same in all forks of a process
# that has used one of them, and whether they are depends on which database a fork opens.
#
# Expected: either SQLite knows of forks, as for its locks and its files it does, or it does not. Its
# documentation says that connections are not to be carried over a fork; a fork that opens its own has
# done what it should.
# Seen: the generator is one for the process, and what seeds it again after a fork is the opening of a
# database in a file: there, and nowhere else, is it noticed that the pid is another one. A fork that opens a
# database in memory (":memory:", a cache, a test) gets its siblings' numbers, row for row; over a file of
# its own the same code does not, and neither does it in memory once the fork has opened some file, in
# whatever other part of the program. So whoever tries it with a file finds nothing.
# sqlite3_randomness(0, NULL) in the fork seeds anew: apsw has it as randomness(0). Python's sqlite3 has no
# way to call it, and to open a file there is one.
#
# Needs Linux, Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q apsw==3.54.1.0

cat >forks.py <<'END'
import os
import sqlite3

import apsw

QUERY = "select hex(randomblob(16)), random()"


def apsw_(path):
    return repr(apsw.Connection(path).execute(QUERY).fetchone())


def sqlite3_(path):
    return repr(sqlite3.connect(path).execute(QUERY).fetchone())


def file_first(path):
    apsw.Connection("other.db").execute("select * from sqlite_schema").fetchall()
    return apsw_(path)


def seeded(path):
    apsw.randomness(0)
    return apsw_(path)


def function(path):
    return apsw.randomness(16).hex()


def fork(draw, path):
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, draw(path).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read()


def tell(name, draw, path):
    drawn = {fork(draw, path), fork(draw, path)} - {""}
    print(f"{name}:", "equal" if len(drawn) == 1 else "different")


tell("before any was drawn, in memory", apsw_, ":memory:")
apsw_(":memory:"), sqlite3_(":memory:")
tell("in memory", apsw_, ":memory:")
tell("in memory, Python's sqlite3", sqlite3_, ":memory:")
tell("the function", function, "")
tell("in a file", apsw_, "a.db")
tell("in a file, Python's sqlite3", sqlite3_, "a.db")
tell("in memory, when another file was opened", file_first, ":memory:")
tell("in memory, seeded anew", seeded, ":memory:")
END

venv/bin/python -c 'import apsw; print("SQLite", apsw.sqlite_lib_version())'
venv/bin/python forks.py | tee seen
cat >expected <<'END'
before any was drawn, in memory: different
in memory: equal
in memory, Python's sqlite3: equal
the function: equal
in a file: different
in a file, Python's sqlite3: different
in memory, when another file was opened: different
in memory, seeded anew: different
END
cmp seen expected
# Seen: as in "expected".
