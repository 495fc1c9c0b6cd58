"""Do the files of csrc/ name only what is below them, and never in a circle?

    python tests/c/rooms.py build/c/gcc [csrc]

Reads the includes of each file and the symbols of each object (nm) that the Makefile beside this
file made of it. What a file names is what it includes and what its object leaves for others to
define. A function that is handed down as a pointer is named by nobody: that is the way up.
Prints a line for each fault and exits with 1 if there is one. Nothing is excused.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

ROOMS = {
    "os": "",
    "spawn": "os",
    "engine": "os spawn",
    "template": "os spawn engine",
    "reset": "os spawn engine template",
    "log": "os",
    "worker": "os spawn",
    # It is linked with these files of other rooms (setup.py), and speaks with one.
    "guest": "os spawn/internal spawn/settle spawn/fdmap spawn/plan template/snapshot",
}
"""The rooms, and what a file may name besides its own room and fastspawn.h: rooms or files."""

PROGRAMS = {"guest", "worker"}
"""Linked by themselves."""

SYSTEM_CALLS = """
    accept4? access bind brk chdir chmod chown close(?:_range)?
    closefrom connect dup[23]? epoll_\\w+ eventfd exec(?:l|le|lp|v|ve|vp|vpe|veat) faccessat fchdir
    fchmod fcntl flock fstat(?:at)? fsync ftruncate getdents64 getrandom getrlimit getrusage
    getsockopt ioctl kevent kill killpg kqueue link listen lseek lstat madvise memfd_create mkdir
    mmap mprotect mremap munmap nanosleep open(?:at)? pause personality pidfd_\\w+ pipe2? ppoll poll
    posix_spawnp? prctl pread preadv prlimit pthread_sigmask ptrace pwrite pwritev read readlink
    readv recv recvfrom recvmsg rename rmdir sched_\\w+ select send sendmsg sendto setgid setgroups
    setitimer setpgid setpriority setresgid setresuid setrlimit setsid setsockopt setuid shutdown
    sigaction sigaltstack sigprocmask sigqueue sigtimedwait sigwait sleep socket(?:pair)? stat
    statx symlink syscall sysconf tgkill timerfd_\\w+ truncate umask uname unlink usleep utimensat
    wait[34]? waitid waitpid write writev malloc calloc realloc strdup
""".split()
"""Calls of the kernel's and of the heap's. Not those that cannot fail (the clocks, getpid), and not
fork and vfork, which return twice: in a frame of their own."""

CALL = re.compile(rf"(?<![\w.>])(?:{'|'.join(SYSTEM_CALLS)})\s*\((?!\))")
SEAM = re.compile(r"\bFSP_CALL\(")
FAULT = re.compile(r'\bfsp_fault\("(\w+)"\)')
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^">]+)[">]', flags=re.M)
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', flags=re.S)


class Tree:
    """The files of csrc/ and what each of them names."""

    def __init__(self, csrc: Path) -> None:
        self.csrc = csrc
        self.text = {
            path.relative_to(csrc).as_posix(): path.read_text()
            for path in sorted(csrc.rglob("*.[ch]"))
        }
        self.faults: list[str] = []
        self.arrows: dict[str, dict[str, str]] = defaultdict(dict)
        """file -> the files that it names, and how the first of the names is told"""

    def follow_includes(self) -> None:
        for path, text in self.text.items():
            for name in INCLUDE.findall(text):
                beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
                target = next((file for file in (beside, name) if file in self.text), "")
                if target:
                    self.add(path, target, f"includes {target}")
                elif name.endswith("Python.h"):
                    self.faults.append(f"{path} includes {name}: the core knows no Python")

    def follow_symbols(self, objects: Path) -> None:
        uses, defined = symbols(objects, list(self.text))
        for path in self.text:
            if path.endswith(".c") and path not in uses:
                self.faults.append(f"{path} has no object in {objects}")
        for path, names in uses.items():
            for name in sorted(names):
                for target in defined.get(name, ()):
                    if room_of(target) in PROGRAMS and room_of(target) != room_of(path):
                        continue  # libc's, which they have in its place
                    self.add(path, target, f"uses {name} of {target}")

    def add(self, path: str, target: str, how: str) -> None:
        """An arrow from a file to another."""
        room, other = room_of(path), room_of(target)
        if room == other or target == "fastspawn.h":
            pass
        elif room not in ROOMS:
            self.faults.append(f"{path} {how}: {room or 'csrc'} is no room")
        elif not {other, stem(target)} & set(ROOMS[room].split()):
            self.faults.append(f"{path} {how}: {other} is not below {room}")
        if path != target:
            self.arrows[path].setdefault(target, f"{path} {how}")

    def look_for_circles(self) -> None:
        """One for each knot of files that can all be reached from each other."""
        ways = {each: reached(self.arrows, each) for each in sorted(self.arrows)}
        told: set[str] = set()
        for start, there in ways.items():
            if start in there and start not in told:
                knot = {each for each in there if start in ways.get(each, ())}
                told |= knot
                circle = min((way_back(self.arrows, each) for each in sorted(knot)), key=len)
                hows = [self.arrows[a][b] for a, b in pairwise(circle)]
                self.faults.append(f"circle: {'; '.join(hows)} ({', '.join(sorted(knot))})")

    def look_for_calls(self) -> None:
        """A system call that the seam does not see."""
        for path, text in self.text.items():
            if room_of(path) == "os":
                continue
            asked = FAULT.findall(text)
            code = without_seam(NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text))
            for found in CALL.finditer(code):
                line = code.count("\n", 0, found.start()) + 1
                name = found[0].split("(")[0].rstrip()
                own = re.search(rf"^static .*\b{name}\(", text, flags=re.M)
                if name not in asked and not own:
                    self.faults.append(f"{path}:{line} calls {name} past the seam (os/sys.h)")


def room_of(path: str) -> str:
    return os.path.dirname(path)


def stem(path: str) -> str:
    return os.path.splitext(path)[0]


def symbols(objects: Path, paths: list[str]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """What each file's objects leave undefined, and which files define a symbol."""
    defined: dict[str, set[str]] = defaultdict(set)
    made = {
        f"{objects}/{folder}/{stem(path)}.o": path
        for path in paths
        for folder in ("csrc", "pic/csrc")
        if path.endswith(".c") and (objects / folder / f"{stem(path)}.o").exists()
    }
    nm = [os.environ.get("NM", "nm"), "-P", "-A", *made]
    uses: dict[str, set[str]] = {path: set() for path in made.values()}
    for line in subprocess.check_output(nm, text=True).splitlines():
        file, name, kind = line.split()[:3]
        path = made[file.rstrip(":")]
        if kind in "Uwv":
            uses[path].add(name)
        elif kind.isupper():
            defined[name].add(path)
    return uses, defined


def without_seam(code: str) -> str:
    """Blanks what stands in the brackets of FSP_CALL."""
    at = 0
    while found := SEAM.search(code, at):
        depth, at = 1, found.end()
        while depth and at < len(code):
            depth += {"(": 1, ")": -1}.get(code[at], 0)
            at += 1
        code = code[: found.end()] + re.sub(r"[^\n]", " ", code[found.end() : at]) + code[at:]
    return code


def reached(arrows: dict[str, dict[str, str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for target in arrows.get(todo.pop(), ()):
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def way_back(arrows: dict[str, dict[str, str]], start: str) -> list[str]:
    """The shortest way from start to itself: there is one."""
    ways = [[start]]
    seen: set[str] = set()
    while start not in seen:
        way = ways.pop(0)
        more = [target for target in arrows.get(way[-1], ()) if target not in seen]
        seen.update(more)
        ways += [[*way, target] for target in more]
    return next(way for way in ways if way[-1] == start)


def main() -> int:
    tree = Tree(Path(sys.argv[2] if len(sys.argv) > 2 else "csrc"))
    tree.follow_includes()
    tree.follow_symbols(Path(sys.argv[1]))
    tree.look_for_circles()
    tree.look_for_calls()
    for fault in tree.faults:
        print(fault, file=sys.stderr)
    return 1 if tree.faults else 0


if __name__ == "__main__":
    sys.exit(main())
