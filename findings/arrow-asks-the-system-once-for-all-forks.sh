#!/bin/sh
# pyarrow 26.0.1: pyarrow.compute.random(n, initializer="system"), which is the default, gives the same numbers in
# each fork of a process that has called it before.
#
# Expected: there are two ways to start the generator of a call, a number, for numbers that come again, and "system",
# documented as a system-specific source of randomness: so numbers that do not, in whichever process.
# numpy's default_rng() asks the system each time it is called.
# Seen: the system is asked once in the life of a process, for a generator of seeds that is kept; each call
# takes its next one. A fork has a copy of it. Two workers that were forked after the first call, in whatever
# library, draw the same sample, and go on with the same ones, call by call; and nothing can be said that
# makes it ask again. An integer from os.urandom as the initializer is what "system" says.
#
# Needs Linux, Python 3.11 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q pyarrow==26.0.1 numpy==2.4.6

cat >forks.py <<'END'
import os

import numpy as np
import pyarrow.compute as pc


def own():
    return pc.random(4, initializer=int.from_bytes(os.urandom(8), "big")).to_pylist()


def fork(draw):
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, repr([draw(), draw()]).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return eval(pipe.read())


def tell(name, draw):
    one, other = fork(draw), fork(draw)
    assert one[0] != one[1]
    print(f"{name}:", "equal" if one == other else "different")


def system():
    return pc.random(4, initializer="system").to_pylist()


tell("system, before the first call", system)
system()
tell("system", system)
tell("a number of the system's", own)
tell("numpy.random.default_rng()", lambda: np.random.default_rng().random(4).tolist())
END

venv/bin/python forks.py | tee seen
cat >expected <<'END'
system, before the first call: different
system: equal
a number of the system's: different
numpy.random.default_rng(): different
END
cmp seen expected
# Seen: as in "expected".
