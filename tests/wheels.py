"""What `make wheel` and `make test-wheel` ask of an interpreter and of a wheel.

python tests/wheels.py is VERSION       is this that version (3.13t: without the GIL), to build for?
python tests/wheels.py suffix TARGET    what its modules are called on that one of zig's
python tests/wheels.py look WHEEL ...   is each one as it has to be? (needs auditwheel)
python tests/wheels.py try              the installed package: the first minute with it
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

MOST_BYTES = 800_000
NEWEST_GLIBC = (2, 28)
SYMBOLS = b"\0.symtab\0"
"""The section that strip(1) takes out, among the names of sections."""


def is_version(version: str) -> None:
    """Exit with 0 if it is, with its headers and venv."""
    free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    same = version == f"{sys.version_info[0]}.{sys.version_info[1]}{free}"
    headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
    try:
        import ensurepip
        import venv
    except ImportError:
        sys.exit(1)
    sys.exit(not (same and headers and ensurepip.version() and venv.__name__))


def suffix(target: str) -> str:
    """Until 3.12 an interpreter on musl may call itself gnu: there, what any of them takes."""
    triplet = re.sub(r"\.[\d.]+$", "", target)
    if "musl" in triplet:
        return ".so"
    own = str(sysconfig.get_config_var("EXT_SUFFIX"))
    return re.sub(r"-[^-]+-linux-gnu\.so$", f"-{triplet}.so", own)


def faults(wheel: Path) -> list[str]:
    """What is wrong with it."""
    found = []
    size = wheel.stat().st_size
    if size > MOST_BYTES:
        found.append(f"{size:,} bytes are more than {MOST_BYTES:,}")
    tags = wheel.stem.split("-")[-1].split(".")
    for tag in tags:
        glibc = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", tag)
        if glibc and (int(glibc[1]), int(glibc[2])) > NEWEST_GLIBC:
            found.append(f"{tag} is for newer systems only")
        if not re.match(r"manylinux|musllinux|macosx", tag):
            found.append(f"{tag} is for no system but the builder's")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for part in ("_core/__init__", "_preload", "_worker"):
            if part == "_preload" and "macosx" in tags[0]:
                continue
            is_it = re.compile(rf"fastspawn/{part}(\.\S+\.so|\.so|)")
            binaries = [name for name in names if is_it.fullmatch(name)]
            if len(binaries) != 1:
                found.append(f"{part}: there is {binaries or 'none'}")
            found += [f"{name} has symbols" for name in binaries if SYMBOLS in archive.read(name)]
    return found


def look(wheels: list[str]) -> None:
    failed = False
    for name in wheels:
        wheel = Path(name)
        wrong = faults(wheel)
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes", *wrong, sep="\n  ")
        failed |= bool(wrong)
    sys.exit(failed)


def first_minute() -> None:
    """run, serve and doctor, of what is installed."""
    import urllib.request

    import fastspawn

    folder = Path(sys.executable).parent
    assert Path(fastspawn.__file__).is_relative_to(sys.prefix), fastspawn.__file__
    ran = fastspawn.run(["echo", "hi"], capture_output=True, text=True)
    assert ran.stdout == "hi\n"
    command = [folder / "fastspawn", "serve", "--port", "0"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            url = re.search(r"http://\S+", line)
            assert url, line
            with urllib.request.urlopen(url[0]) as answer:
                assert answer.read() == b"hi\n"
        finally:
            server.terminate()
    assert server.returncode == 0, server.returncode
    doctor = subprocess.run([folder / "fastspawn", "doctor"], capture_output=True, text=True)
    assert doctor.returncode == 0, doctor
    print(f"fastspawn {fastspawn.__version__} on {sys.version.split()[0]}: run, serve, doctor")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["is", version]:
            is_version(version)
        case ["suffix", target]:
            print(suffix(target))
        case ["look", *wheels]:
            look(wheels)
        case ["try"]:
            first_minute()
        case _:
            sys.exit(__doc__)
