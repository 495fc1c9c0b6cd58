"""Real programs, and requests to each that a resident of it has to answer as exec does.

Those that a small Debian with git and Python has come first; what is missing is skipped. `@@` is a
folder with the files that folder() makes.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

TEXT = b"pear 3\napple 1\nfig 2\napple 1\n"
MORE = b"".join(b"%d line of some length, to have more than a page\n" % (i * 7) for i in range(200))
INPUTS = (TEXT, MORE)


def folder(at: Path) -> Path:
    (at / "sub").mkdir(parents=True)
    (at / "a").write_bytes(TEXT)
    (at / "b").write_bytes(MORE)
    (at / "c").write_bytes(TEXT.replace(b"fig", b"date"))
    (at / "s1").write_bytes(b"1 a\n2 b\n4 d\n")
    (at / "s2").write_bytes(b"1 x\n3 y\n4 z\n")
    (at / "json").write_text('{"b": [1, 2, {"c": "x"}], "a": null}')
    (at / "gz").write_bytes(gzip.compress(MORE, mtime=0))
    (at / "sub" / "d").write_bytes(b"#!/bin/sh\necho d\n")
    (at / "sub" / "link").symlink_to("../a")
    return at


def repository(at: Path) -> None:
    """In @@/git."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(at / "git")]
    dates = {f"GIT_{name}_DATE": "@1000000000 +0000" for name in ("AUTHOR", "COMMITTER")}
    (at / "git").mkdir()
    (at / "git" / "file").write_bytes(TEXT)
    for args in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *args], env=os.environ | dates, check=True, capture_output=True)
    (at / "git" / "file").write_bytes(TEXT + b"more\n")


def path_of(name: str) -> str | None:
    """python3 may be a script that looks for it."""
    return sys.executable if name == "python3" else shutil.which(name)


MAY_LEAVE = {"cpp", "file", "ps", "ruby", "zstd"}
"""Each time, or at the effect."""

PROGRAMS: dict[str, tuple[list[str], ...]] = {
    # coreutils
    "echo": (["hi"], ["-n", "a", "b"], []),
    "printf": (["%s-%d\n", "a", "7", "b", "8"], ["%x"], []),
    "cat": ([], ["@@/a", "-", "@@/b"], ["@@/none"]),
    "tac": ([], ["@@/a"], ["-s", " ", "@@/a"]),
    "nl": ([], ["-ba", "@@/b"]),
    "head": (["-n2"], ["-c", "10", "@@/b"], ["-n", "-1", "@@/a"]),
    "tail": (["-n2"], ["-c", "10", "@@/b"], ["-n", "+2"]),
    "sort": (["-r"], ["-u", "@@/a"], ["-k2n"], ["-o", "@@/none/none"]),
    "uniq": (["-c"], ["-d"], []),
    "comm": (["@@/a", "@@/c"], ["-12", "@@/s1", "@@/s2"]),
    "join": (["@@/s1", "@@/s2"], ["-a1", "@@/s1", "-"]),
    "paste": (["-d,", "-", "@@/a"], ["-s"]),
    "cut": (["-d ", "-f2"], ["-c1-3", "@@/b"]),
    "tr": (["a-z", "A-Z"], ["-d", "a"], ["-s", "p"]),
    "fold": (["-w4"], ["-s", "-w20", "@@/b"]),
    "fmt": (["-w30"], ["@@/b"]),
    "expand": (["-t3"], ["@@/a"]),
    "od": (["-c"], ["-tx1", "-An", "@@/b"]),
    "wc": ([], ["-l", "@@/a", "@@/b"]),
    "sum": ([], ["-s", "@@/b"]),
    "cksum": ([], ["@@/a", "@@/b"]),
    "md5sum": ([], ["@@/a", "@@/none"]),
    "sha256sum": ([], ["@@/b"], ["--tag", "@@/a"]),
    "base64": ([], ["-w0", "@@/b"], ["-d"]),
    "seq": (["1000"], ["3", "-1", "1"], ["x"]),
    "factor": (["1234567890123"], []),
    "expr": (["6", "*", "7"], ["abc", ":", "a\\(.\\)"], ["1", "/", "0"]),
    "test": (["-f", "@@/a"], ["1", "-gt", "2"]),
    "true": ([], ["x"]),
    "false": ([], ["x"]),
    "ls": (["@@"], ["-1R", "@@/sub"], ["-la", "--time-style=+%s", "@@"], ["@@/none"]),
    "stat": (["-c%n %s %Y", "@@/a"], ["-f", "-c%T", "@@"]),
    "du": (["-b", "@@/a", "@@/b"], ["-ab", "@@/sub"]),
    "readlink": (["@@/sub/link"], ["-f", "@@/sub/link"]),
    "realpath": (["@@/sub/../a"], ["--relative-to=@@", "@@/sub/d"]),
    "basename": (["/a/b.c", ".c"], ["x"]),
    "dirname": (["/a/b", "c"],),
    "pwd": ([],),
    "mkdir": (["-p", "@@/sub"], ["@@/sub"]),
    "cp": (["@@/a", "@@/new"], ["-a", "@@/sub", "@@/copy"]),
    "mv": (["-f", "@@/none", "@@/x"], ["@@/sub", "@@/a"]),
    "rm": (["-f", "@@/new"], ["@@/none"]),
    "ln": (["-sf", "x", "@@/new-link"], ["@@/none", "@@/y"]),
    "touch": (["-d@5", "@@/new"], ["@@/none/x"]),
    "chmod": (["600", "@@/c"], ["x", "@@/c"]),
    "dd": (["bs=5", "count=3", "status=none"], ["if=@@/b", "bs=100", "skip=1", "status=none"]),
    "tee": ([], ["@@/new"], ["-a", "@@/none/x"]),
    "shuf": (["-i1-1"], ["-n0"]),
    "tsort": ([],),
    "id": (["-u"], ["-gn"]),
    "date": (["-u", "-d@0"], ["-d", "x"], ["+%Y"]),
    "uname": (["-sm"], []),
    "nproc": ([], ["--all"]),
    "env": (["-i"], ["-u", "PATH", "-0"]),
    # other programs that each Debian has
    "dash": (
        ["-c", "read x; echo $x $#", "0", "1"],
        ["-c", "cd /; umask 077; umask; pwd; trap 'echo bye' EXIT; exit 3"],
        ["-c", "i=0; while [ $i -lt 50 ]; do i=$((i+1)); done; echo $i >@@/new; cat=1; echo $cat"],
        ["-c", "set -o nosuchoption"],
    ),
    "bash": (
        ["--norc", "-c", "read x y; echo ${x^^} $y; a=(1 2 3); echo ${#a[@]} ${a[-1]}"],
        [
            "--norc",
            "-c",
            "declare -A m=([k]=v); [[ abc =~ b(.) ]] && echo ${BASH_REMATCH[1]} ${m[k]}",
        ],
        ["--norc", "-c", "while read -r l; do printf '%s|' \"$l\"; done <@@/a; exit 4"],
    ),
    "sed": (["s/p/P/g"], ["-n", "2,3p;$=", "@@/b"], ["-E", "s/(.)(.)/\\2\\1/;q5"], ["x{"]),
    "grep": (
        ["p"],
        ["-c", "line", "@@/b"],
        ["-rn", "echo", "@@/sub"],
        ["-E", "("],
        ["-P", "a(?=p)"],
    ),
    "mawk": (["{ print NR, $1 }"], ['{ s += $2 } END { printf "%.2f\\n", s / 3 }'], ["{"]),
    "find": (["@@/sub", "-name", "d"], ["@@", "-type", "f", "-size", "+1k"], ["@@/none"]),
    "diff": (
        ["@@/a", "@@/a"],
        ["-u", "--label=x", "--label=y", "@@/a", "@@/c"],
        ["@@/none", "@@/a"],
    ),
    "cmp": (["@@/a", "@@/a"], ["@@/a", "@@/c"]),
    "tar": (["-cf-", "-C", "@@", "--mtime=@0", "a", "b"], ["-tf", "@@/none"], ["-tf-"]),
    "gzip": (["-nc"], ["-dc", "@@/gz"], ["-d"], ["-l", "@@/gz"]),
    "perl": (
        ["-e", "while (<>) { print uc }"],
        ["-we", "my %h = map { $_ => 1 } 1..500; print scalar(keys %h), qq(\\n); die 'x'"],
        ["-ne", "print if /(\\d)/ && $1 > 1"],
    ),
    "iconv": (["-f", "latin1", "-t", "utf-8"], ["-t", "ascii"], ["-t", "none"]),
    "getconf": (["PAGESIZE"], ["none"]),
    "locale": ([], ["charmap"]),
    "getent": (["passwd", "0"], ["passwd", "no such user"]),
    "dpkg": (["--compare-versions", "1.2", "lt", "1.10"], ["--print-architecture"]),
    "rev": ([], ["@@/a"]),
    "getopt": (["-o", "ab:", "--", "-a", "-b", "x y"], ["-o", "a", "--", "-c"]),
    "hostname": ([],),
    "tput": (["-Txterm", "setaf", "1"], ["-Txterm", "cols"]),
    "infocmp": (["-1", "xterm"],),
    # what developers have
    "python3": (
        ["-IS", "-c", "import sys; print(sys.stdin.read().upper(), sys.argv)", "a"],
        ["-IS", "-c", "print(sorted({str(i) for i in range(300)})[7]); raise SystemExit(4)"],
        ["-IS", "-c", "1/0"],
    ),
    "git": (
        ["--version"],
        ["-C", "@@/git", "rev-parse", "HEAD"],
        ["-C", "@@/git", "--no-pager", "log", "--oneline"],
        ["-C", "@@/git", "--no-pager", "diff", "--stat"],
        ["-C", "@@/git", "cat-file", "-p", "HEAD:file"],
        ["-C", "@@/git", "status", "--porcelain"],
        ["hash-object", "--stdin"],
        ["-C", "/", "status"],
    ),
    "gawk": (["{ print NR, $1 }"], ['BEGIN { print length("abc"), toupper("x"); exit 3 }'], ["{"]),
    "xz": (["-c"], ["-T1", "-0", "-c"], ["-dc", "@@/a"]),
    "bzip2": (["-c"], ["-dc", "@@/a"]),
    "zstd": (["-qc"], ["-dc", "@@/a"]),
    "file": (["-b", "@@/a"], ["-b", "@@/gz", "@@/sub/d"]),
    "openssl": (
        ["dgst", "-sha256", "@@/a"],
        ["enc", "-base64"],
        ["version"],
    ),
    "bc": (["-q"], ["-l", "-q"]),
    "jq": (["-R", "."], [".b[2].c", "@@/json"], ["-n", "[range(5)]"], ["."]),
    "sqlite3": (
        [":memory:", "create table t (x); insert into t values (7); select x * 6 from t;"],
        ["-json", ":memory:", "select 1 as a, 'b' as b"],
        [":memory:", "select none"],
    ),
    "readelf": (["-h", "/bin/true"], ["-d", "/bin/true"], ["@@/a"]),
    "nm": (["-D", "/bin/true"], ["@@/none"]),
    "strings": (["-n8", "@@/b"], []),
    "cpp": (["-P", "-"],),
    "lua": (["-e", "print(('x'):rep(3), #arg)"], ["-e", "error('x')"]),
    "ruby": (["--disable-gems", "-e", "puts STDIN.read.upcase"],),
    "php": (["-n", "-r", "echo strtoupper(stream_get_contents(STDIN));"],),
    "column": (["-t"],),
    "xxd": ([], ["-p", "@@/b"]),
    "ps": (["-o", "comm=", "-p", "1"],),
    "curl": (["-s", "file://@@/a"], ["--version"]),
}
