#!/bin/sh
# ulid-transform 2.2.9 (Python) and GLib 2.74.6 (Debian 12): what makes unique identifiers makes the same ones in
# each fork of a process that has made one before.
#
# Expected: identifiers differ, whoever makes them; a library that keeps a generator of random numbers for speed
# gives a fork a seed of its own (pthread_atfork, os.register_at_fork, or a look at the pid). Python's uuid,
# python-ulid, fastuuid, uuid-utils and fastnanoid, the last three in Rust, do that or ask the kernel each time.
# Seen: the random part of a ULID, 80 bits, is the same in two forks, and so is the next one, and so on: only
# the milliseconds differ, and they do not where two requests come within one. g_uuid_string_random gives
# a UUID of version 4 that is the same from the first to the last digit. Nothing is seen where each process makes its
# first one after the fork, so tests with one worker, or with workers that load the application
# themselves, show nothing: it takes a server that loads it once and forks (gunicorn --preload,
# multiprocessing, a prefork of one's own), and an identifier that is made while it loads.
#
# Needs Debian 12's package archive (apt-get update as root first), amd64, Python 3.10 to 3.13 and the package
# index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q ulid-transform==2.2.9 python-ulid==4.1.0 fastuuid==0.14.0 uuid-utils==1.2.0 \
    fastnanoid==0.4.3
for package in libglib2.0-0=2.74.6-2+deb12u9 libpcre2-8-0=10.42-1+deb12u2; do apt-get -qq download "$package"; done
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH

cat >forks.py <<'END'
import ctypes
import os
import uuid

import fastnanoid
import fastuuid
import ulid
import ulid_transform
import uuid_utils

glib = ctypes.CDLL("libglib-2.0.so.0")
glib.g_uuid_string_random.restype = ctypes.c_char_p


def fork(make):
    """What make() returns the first two times in a process that was forked just now."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, f"{make()} {make()}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read().split()


TIME = 10  # letters of a ULID
MAKERS = {
    "ulid-transform": lambda: ulid_transform.ulid_now()[TIME:],
    "GLib": lambda: glib.g_uuid_string_random().decode(),
    "python-ulid": lambda: str(ulid.ULID())[TIME:],
    "fastuuid": fastuuid.uuid4,
    "uuid-utils": uuid_utils.uuid4,
    "fastnanoid": fastnanoid.generate,
    "uuid": uuid.uuid4,
}
for name, make in MAKERS.items():
    make()
    one, other = fork(make), fork(make)
    assert len(one) == len(other) == len({*one}) == 2
    print(f"{name}: two forks' are", "equal" if one == other else "different")
END

venv/bin/python forks.py | tee seen
cat >expected <<'END'
ulid-transform: two forks' are equal
GLib: two forks' are equal
python-ulid: two forks' are different
fastuuid: two forks' are different
uuid-utils: two forks' are different
fastnanoid: two forks' are different
uuid: two forks' are different
END
cmp seen expected
# Seen: as in "expected".
