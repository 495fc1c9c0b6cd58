"""The extension module: the Cython binding and the C core. All else is in pyproject.toml.

Switches, read from the environment:

FASTSPAWN_SANITIZE  sanitizers to build with, as for -fsanitize: "address,undefined", "thread"
FASTSPAWN_COVERAGE  "1": count executed lines, of C (gcov) and of Cython
FASTSPAWN_DEBUG     "1": no optimization, assertions on; follows from the two above
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

if sys.platform not in ("linux", "darwin"):
    sys.exit(f"fastspawn runs on Linux and macOS only, not on {sys.platform}")

# Every source of csrc/ that goes into the module; tests/c/Makefile reads this list too.
CORE = """
    fault plan fdmap path stdio
    pad pipe settle child spawn wait talk
    backend_clone3 backend_clone backend_vfork backend_posix_spawn backend_fork
    poller_epoll poller_kqueue heap slots mail feed collect zygote job spawner engine
""".split()

# A shared object of its own, which the programs of templates load (csrc/preload.c).
PRELOAD = "preload effect inputs settle fdmap plan fault".split()

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

preload = Extension(
    "fastspawn._preload",
    [f"csrc/{name}.c" for name in PRELOAD],
    include_dirs=["csrc"],
    depends=glob("csrc/*.h"),
    extra_compile_args=preload_cflags,
)

setup(
    ext_modules=[
        *([preload] if sys.platform == "linux" else []),
        Extension(
            "fastspawn._core",
            ["src/fastspawn/_core.pyx", *(f"csrc/{name}.c" for name in CORE)],
            include_dirs=["csrc"],
            depends=[*glob("csrc/*.h"), *glob("src/fastspawn/*.pxd")],
            extra_compile_args=cflags,
            extra_link_args=ldflags,
        ),
    ],
    options={
        "build_ext": {
            "build_temp": f"build/{sys.implementation.cache_tag}",
            "cython_c_in_temp": True,
            "cython_directives": directives,
            # The switches above are no file that could be newer than the module.
            "force": True,
        }
    },
)
