"""The extension module (the Cython binding and the C core), and what lies beside it.

All else is in pyproject.toml.

Switches, read from the environment:

FASTSPAWN_SANITIZE  sanitizers to build with, as for -fsanitize: "address,undefined", "thread"
FASTSPAWN_COVERAGE  "1": count executed lines, of C (gcov) and of Cython
FASTSPAWN_DEBUG     "1": no optimization, assertions on; follows from the two above
"""

import os
import sys
import zlib
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform not in ("linux", "darwin"):
    sys.exit(f"fastspawn runs on Linux and macOS only, not on {sys.platform}")

# Every source of csrc/ that goes into the module; tests/c/Makefile reads this list too.
CORE = """
    fault plan fdmap path stdio
    pad pipe settle child spawn start wait talk
    backend_clone3 backend_clone backend_vfork backend_posix_spawn backend_fork
    template tend launch zygote stale checkpoint retire
    poller_epoll poller_kqueue heap slots mail feed collect job spawner engine
    outlet
""".split()

# A shared object of its own, which the programs of templates load (csrc/preload.c).
PRELOAD = """
    preload atfork tasks fresh bind effect plain rdrand environment loops copies inputs maps merge
    settle fdmap plan fault
""".split()

# A program of its own: the worker of a ResettablePool (csrc/worker.c), with the steps of a spawn.
WORKER = """
    worker
    fault plan fdmap path
    pad pipe settle child spawn wait
    backend_clone3 backend_clone backend_vfork backend_posix_spawn backend_fork
""".split()

SANITIZE = os.environ.get("FASTSPAWN_SANITIZE", "")
COVERAGE = os.environ.get("FASTSPAWN_COVERAGE", "") not in ("", "0")
DEBUG = os.environ.get("FASTSPAWN_DEBUG", "") not in ("", "0") or bool(SANITIZE) or COVERAGE

cflags = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra"]
preload_cflags = list(cflags)
ldflags = ["-pthread"]
directives = {"language_level": "3", "auto_pickle": False, "autotestdict": False}
if DEBUG:
    cflags += ["-O0", "-g", "-UNDEBUG"]
if SANITIZE:
    cflags += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    ldflags += [f"-fsanitize={SANITIZE}"]
if COVERAGE:
    cflags += ["--coverage", "-DCYTHON_TRACE=1"]
    ldflags += ["--coverage"]
    directives["linetrace"] = True

sources = [Path(path).read_bytes() for path in sorted(glob("csrc/*.[ch]"))]
build = ("FSP_BUILD", f"{zlib.crc32(b''.join(sources))}u")  # csrc/snapshot.h

preload = Extension(
    "fastspawn._preload",
    [f"csrc/{name}.c" for name in PRELOAD],
    include_dirs=["csrc"],
    depends=glob("csrc/*.[ch]"),  # all that the number is made of
    define_macros=[build],
    extra_compile_args=preload_cflags,
    extra_link_args=["-nostartfiles", "-Wl,-z,noseparate-code", "-Wl,-z,norelro"],
)

worker = Extension(
    "fastspawn._worker",
    [f"csrc/{name}.c" for name in WORKER],
    include_dirs=["csrc"],
    depends=glob("csrc/*.h"),
    extra_compile_args=preload_cflags,
)


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
        if ext.name != worker.name:
            super().build_extension(ext)
            return
        objects = self.compiler.compile(
            ext.sources,
            output_dir=os.path.join(self.build_temp, "worker"),
            include_dirs=ext.include_dirs,
            extra_postargs=ext.extra_compile_args,
            depends=ext.depends,
        )
        folder, name = os.path.split(self.get_ext_fullpath(ext.name))
        os.makedirs(folder, exist_ok=True)
        self.compiler.link_executable(objects, name, folder, extra_postargs=["-pthread"])


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        *([preload] if sys.platform == "linux" else []),
        worker,
        Extension(
            "fastspawn._core",
            ["src/fastspawn/_core.pyx", *(f"csrc/{name}.c" for name in CORE)],
            include_dirs=["csrc"],
            depends=[*glob("csrc/*.[ch]"), *glob("src/fastspawn/*.pxd")],
            define_macros=[build],
            extra_compile_args=cflags,
            extra_link_args=ldflags,
        ),
    ],
)
