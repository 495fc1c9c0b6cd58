#!/bin/sh
# uvloop 0.23.0: each spawn that fails in its child's preexec_fn leaves a zombie for the life of the
# server, and each that fails for a bad descriptor leaves descriptors open.
#
# Expected: the exception is all that is left of a spawn that failed, as below asyncio's own loop:
# uvloop knows that the child ended (the exception says so), and pipes were made for nobody.
# Seen: after five spawns whose preexec_fn raises, five zombies, which no child watcher and no later
# spawn reaps; after five with stdout=999, about ten descriptors more. A server that tries to drop
# rights in preexec_fn, and may not, runs out of processes. asyncio's loop keeps nothing.
#
# Needs Python 3.10 or newer, Linux and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q uvloop==0.23.0

cat >"$folder/leaves.py" <<'END'
import asyncio, gc, os, sys
import uvloop


def refuse():
    raise PermissionError("not allowed")


def kept():
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return len(os.listdir("/proc/self/fd")), len(children.read().split())


async def failing(**how):
    """Descriptors and children more than before, after five spawns that fail."""
    await (await asyncio.create_subprocess_exec("true")).wait()  # what a first one makes for good
    before = kept()
    for _ in range(5):
        try:
            await asyncio.create_subprocess_exec("true", **how)
        except Exception as error:
            seen = type(error).__name__
    await asyncio.sleep(0.2)
    gc.collect()
    descriptors, children = (now - then for now, then in zip(kept(), before))
    return seen, descriptors, children


loop = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[sys.argv[1]]()
asyncio.set_event_loop(loop)
for name, how in (("preexec_fn", {"preexec_fn": refuse}), ("stdout=999", {"stdin": -1, "stdout": 999})):
    seen, descriptors, children = loop.run_until_complete(failing(**how))
    print(f"{sys.argv[1]} {name}: 5 {seen}, {descriptors} descriptors and {children} children left")
END

run() { "$folder/venv/bin/python" -W ignore "$folder/leaves.py" "$1"; }
asyncio=$(run asyncio)
uvloop=$(run uvloop)
echo "$asyncio"
echo "$uvloop"
echo "$asyncio" | grep -q 'preexec_fn: .*, 0 descriptors and 0 children left'
echo "$asyncio" | grep -q 'stdout=999: .*, 0 descriptors and 0 children left'
echo "$uvloop" | grep -q 'preexec_fn: .* and 5 children left' || { echo "changed: zombies"; exit 1; }
if echo "$uvloop" | grep -q 'stdout=999: .*, 0 descriptors'; then echo "changed: descriptors"; exit 1; fi
# Seen: asyncio preexec_fn: 5 SubprocessError, 0 descriptors and 0 children left
#       asyncio stdout=999: 5 OSError, 0 descriptors and 0 children left
#       uvloop preexec_fn: 5 SubprocessError, 0 descriptors and 5 children left
#       uvloop stdout=999: 5 OSError, 11 descriptors and 0 children left
