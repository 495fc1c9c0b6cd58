"""The extension module (the Cython binding and the C core), and what lies beside it.

All else is in pyproject.toml.

Switches, read from the environment:

FASTSPAWN_SANITIZE  sanitizers to build with, as for -fsanitize: "address,undefined", "thread"
FASTSPAWN_COVERAGE  a directory: what is entered of C and Cython is noted there (`make coverage`)
FASTSPAWN_DEBUG     "1": no optimization, assertions on; follows from the two above

What is built has no symbols, but with one of these, or with a -g in CFLAGS.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform not in ("linux", "darwin"):
    sys.exit(f"fastspawn runs on Linux and macOS only, not on {sys.platform}")

# The rooms of csrc/ (ARCHITECTURE.md), and what is made of them; tests/c/Makefile reads these, too.
# The module:
CORE = "os spawn engine template reset log"
# A shared object of its own, which the programs of templates load (csrc/guest/preload.c), and with
# which files of other rooms:
PRELOAD = "guest"
PRELOAD_FILES = "spawn/settle spawn/fdmap spawn/plan os/fault"
# A program of its own, the worker of a ResettablePool (csrc/worker/worker.c):
WORKER = "os spawn worker"

# The binding, whose parts are compiled one by one and linked into one module (its __init__.pyx).
PARTS = sorted(glob("src/fastspawn/_core/*.pyx"))

SOURCES = sorted(glob("csrc/**/*.[ch]", recursive=True))


def files_of(rooms: str) -> "list[str]":
    return [path for room in rooms.split() for path in sorted(glob(f"csrc/{room}/*.c"))]


SANITIZE = os.environ.get("FASTSPAWN_SANITIZE", "")
COVERAGE = os.environ.get("FASTSPAWN_COVERAGE", "")
DEBUG = os.environ.get("FASTSPAWN_DEBUG", "") not in ("", "0") or bool(SANITIZE or COVERAGE)

MACOS = sys.platform == "darwin"
SYMBOLS = DEBUG or any(
    flag.startswith("-g") and flag != "-g0" for flag in os.environ.get("CFLAGS", "").split()
)

cflags = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
ldflags = ["-pthread"]
if not SYMBOLS:
    cflags += ["-g0"]  # Python's own flags have -g
    ldflags += ["-Wl,-x" if MACOS else "-Wl,-s"]
# The guest is built as ever: it goes into programs that know of no sanitizer.  It runs between any
# two instructions of theirs, and puts stacks and registers back: it counts on no canary that libc
# keeps, and does not claim (CET) that each return goes where its call came from.
GUEST_CFLAGS = ["-fno-stack-protector", "-fcf-protection=none", "-U_FORTIFY_SOURCE"]
plain_cflags, plain_ldflags = list(cflags), list(ldflags)
# A write past a buffer ends the process, a stack does not jump over its guard, tables of functions
# are read-only.  What a compiler or a linker does not know of these is left out.
HARD_CFLAGS = ["-fstack-protector-strong", "-fstack-clash-protection", "-fcf-protection"]
HARD_LDFLAGS = [] if MACOS else ["-Wl,-z,relro", "-Wl,-z,now"]
if not DEBUG:  # it needs optimization
    cflags += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
# Of the rooms below it a program has what it calls.
program_cflags = [*cflags, "-ffunction-sections", "-fdata-sections"]
program_ldflags = [*ldflags, "-Wl,-dead_strip" if MACOS else "-Wl,--gc-sections"]
directives = {"language_level": "3", "auto_pickle": False, "autotestdict": False}
# Functions of C's own kind: Cython's have code of their own in each part, and cost more to call.
# Their signatures are where C's have theirs.
directives |= {"binding": False, "embedsignature": True, "embedsignature.format": "clinic"}
# The binding has locks of its own where there is no GIL (critical sections, and in child.pyx).
directives |= {"freethreading_compatible": True}
if DEBUG:
    cflags += ["-O0", "-g", "-UNDEBUG"]
if "undefined" in SANITIZE:  # that one needs no runtime: it ends the program (SIGILL)
    plain_cflags += ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
if SANITIZE:
    cflags += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    ldflags += [f"-fsanitize={SANITIZE}"]
HITS = "tests/coverage/hits.c"
HITS_CFLAGS = ["-fsanitize-coverage=trace-pc", "-O0", "-gdwarf-4"]

sources = [Path(path).read_bytes() for path in SOURCES]
build = ("FSP_BUILD", f"{zlib.crc32(b''.join(sources))}u")  # csrc/template/snapshot.h

# A page less of memory for each program; some linkers do so anyway.
ONE_SEGMENT = ["-Wl,-z,noseparate-code"]

preload = Extension(
    "fastspawn._preload",
    [*files_of(PRELOAD), *(f"csrc/{name}.c" for name in PRELOAD_FILES.split())],
    include_dirs=["csrc"],
    depends=SOURCES,  # all that the number is made of
    define_macros=[build],
    extra_compile_args=plain_cflags,
    extra_link_args=[*plain_ldflags, "-nostartfiles", "-Wl,-z,norelro"],
)

core = Extension(
    "fastspawn._core.__init__",
    [*PARTS, *files_of(CORE)],
    include_dirs=["csrc", "src/fastspawn/_core"],
    depends=[
        *SOURCES,
        *glob("src/fastspawn/**/*.pxd", recursive=True),
        *glob("src/fastspawn/_core/*.h"),
    ],
    define_macros=[build],
    extra_compile_args=cflags,
    extra_link_args=ldflags,
)

worker = Extension(
    "fastspawn._worker",
    files_of(WORKER),
    include_dirs=["csrc"],
    depends=SOURCES,
    extra_compile_args=program_cflags,
    extra_link_args=program_ldflags,
)


# ---- what is not here is told in a line, before a page of what was done until then --------------

BUILDS = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
PACKAGES = {  # compiler, headers of libc, headers of Python
    "apt-get": ("install gcc", "install libc6-dev", "install python3-dev"),
    "apk": ("add gcc musl-dev", "add musl-dev", "add python3-dev"),
    "dnf": ("install gcc", "install glibc-devel", "install python3-devel"),
    "zypper": ("install gcc", "install glibc-devel", "install python3-devel"),
    "pacman": ("-S gcc", "-S glibc", "-S python"),
}


def install(which: int) -> str:
    if MACOS and which < 2:
        return "xcode-select --install"
    for manager, packages in PACKAGES.items():
        if shutil.which(manager):
            return f"{manager} {packages[which]}"
    return "see your system's packages"


def what_is_missing() -> "str | None":
    """Found by compiling next to nothing."""
    folders = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(f"{os.environ.get('CPPFLAGS', '')} {os.environ.get('CFLAGS', '')}")
    # -E, and of a file: zig's compiler checks no syntax alone, and reads no standard input.
    command = [*compiler, *flags, *(f"-I{folder}" for folder in folders), "-E"]

    def has(header: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "has.c")
            source.write_text(f"#include <{header}>\n")
            done = subprocess.run([*command, source], capture_output=True, check=False)
        return done.returncode == 0

    try:
        if not has("stdio.h"):
            return f"the C library's headers, which {compiler[0]} does not find: {install(1)}"
    except OSError:
        return f"a C compiler, and {compiler[0]} is not there: {install(0)}"
    if not has("Python.h"):
        whose = f"{sys.executable} (Python {sysconfig.get_python_version()})"
        how = install(2) if sysconfig.get_path("include").startswith("/usr/include") else ""
        return f"the headers of {whose}: {how or 'a Python that comes with them'}"
    return None


if BUILDS.intersection(sys.argv) and (missing := what_is_missing()):
    sys.exit(f"fastspawn has no wheel for this system, and to build it needs {missing}")


class BuildExt(build_ext):
    """An extension that is no module but a program is linked as one, and lies beside the others."""

    # Not by setup(options=): an editable install forgets those.
    def initialize_options(self):
        super().initialize_options()
        self.build_temp = f"build/{sys.implementation.cache_tag}"
        self.cython_c_in_temp = True
        self.cython_directives = directives
        # The switches above are no file that could be newer than the module.
        self.force = True

    def get_ext_filename(self, fullname):
        if fullname.endswith("_worker"):
            return os.path.join(*fullname.split("."))
        return super().get_ext_filename(fullname)

    def build_extension(self, ext):
        if COVERAGE:
            self.count(ext)
        if ext.name == core.name:
            self.translate(ext)
        if ext.name == preload.name:
            ext.extra_compile_args += [flag for flag in GUEST_CFLAGS if self.takes(flag)]
            ext.extra_link_args += [flag for flag in ONE_SEGMENT if self.takes(flag)]
        else:
            ext.extra_compile_args += [flag for flag in HARD_CFLAGS if self.takes(flag)]
            ext.extra_link_args += [flag for flag in HARD_LDFLAGS if self.takes(flag)]
        if ext.name == worker.name:
            self.build_program(ext)
        else:
            super().build_extension(ext)

    def count(self, ext):
        """A call at each block of its code: tests/coverage/hits.c."""
        name = os.path.basename(self.get_ext_filename(ext.name))
        ext.sources.append(HITS)
        ext.define_macros = [*ext.define_macros, ("FSP_HITS", f'"{COVERAGE}/{name}"')]
        ext.extra_compile_args += HITS_CFLAGS

    def takes(self, flag):
        """Do the compiler and the linker know it?  zig's knows of -z only what it needs, and for
        another processor than x86 there is no -fcf-protection."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "takes.c")
            source.touch()
            command = [*self.compiler.linker_so, source, flag, "-o", Path(folder, "takes.so")]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def translate(self, ext):
        """Cython would take the first of an extension's sources for all of it."""
        from Cython.Build import cythonize

        parts = [
            Extension(".".join(Path(path).with_suffix("").parts[1:]), [path])
            for path in ext.sources
            if path.endswith(".pyx")
        ]
        parts = cythonize(
            parts,
            build_dir=self.build_temp,
            compiler_directives=directives,
            force=self.force,
            quiet=True,
        )
        others = [path for path in ext.sources if not path.endswith(".pyx")]
        ext.sources = [*(path for part in parts for path in part.sources), *others]

    def build_program(self, ext):
        objects = self.compiler.compile(
            ext.sources,
            output_dir=os.path.join(self.build_temp, "worker"),
            include_dirs=ext.include_dirs,
            macros=ext.define_macros,
            extra_postargs=ext.extra_compile_args,
            depends=ext.depends,
        )
        folder, name = os.path.split(self.get_ext_fullpath(ext.name))
        os.makedirs(folder, exist_ok=True)
        self.compiler.link_executable(objects, name, folder, extra_postargs=ext.extra_link_args)


# ---- the page on a package index, where there is nothing beside README.md -----------------------

REPOSITORY = "fastspawn/fastspawn"


def readme() -> str:
    """README.md, with links to, and pictures of, the files of this version."""
    version = re.search(
        '^__version__ = "(.+)"', Path("src/fastspawn/__init__.py").read_text(), re.M
    )
    tag = f"v{version[1]}"

    def absolute(link: "re.Match[str]") -> str:
        site = f"https://github.com/{REPOSITORY}/blob"
        if link[1].startswith("!"):
            site = f"https://raw.githubusercontent.com/{REPOSITORY}"
        return f"{link[1]}({site}/{tag}/{link[2]})"

    return re.sub(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)\s]+)\)", absolute, Path("README.md").read_text())


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        *([preload] if sys.platform == "linux" else []),
        worker,
        core,
    ],
)
