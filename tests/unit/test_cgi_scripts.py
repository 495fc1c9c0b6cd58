"""From a path to a script, and to nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastspawn.serve.cgi.environment import Script
from fastspawn.serve.cgi.scripts import ScriptDirectory
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.paths import BadPath, split
from support import foreign_link as foreign


def make(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def find(directory: ScriptDirectory, path: bytes) -> Script:
    return directory.find(path[1:].split(b"/"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory as http.server --cgi served it, and things that are not to be run."""
    make(tmp_path / "secret")
    make(tmp_path / "lib" / "program")
    make(tmp_path / "lib" / "data", 0o644)
    root = tmp_path / "site"
    make(root / "index.cgi")
    scripts = root / "cgi-bin"
    make(scripts / "show")
    make(scripts / "sub" / "deep")
    make(scripts / "data.txt", 0o644)
    make(scripts / ".hidden")
    make(scripts / ".git" / "hook")
    os.mkfifo(scripts / "pipe", 0o755)
    (scripts / "within").symlink_to("show")
    (scripts / "dir").symlink_to("sub")
    foreign(scripts / "out", tmp_path / "secret")
    (scripts / "installed").symlink_to(tmp_path / "lib" / "program")
    (scripts / "sub" / "again").symlink_to("../installed")
    (scripts / "installed-data").symlink_to(tmp_path / "lib" / "data")
    (scripts / "lib").symlink_to(tmp_path / "lib")
    (scripts / "up").symlink_to("..")
    (scripts / "root").symlink_to("/")
    (scripts / "self").symlink_to("self")
    (scripts / "nowhere").symlink_to("nothing")
    make(root / "htbin" / "old")
    return root


@pytest.mark.parametrize(
    ("path", "name", "info"),
    [
        (b"/cgi-bin/show", b"/cgi-bin/show", b""),
        (b"/cgi-bin/show/", b"/cgi-bin/show", b"/"),
        (b"/cgi-bin/show/a/b", b"/cgi-bin/show", b"/a/b"),
        (b"/cgi-bin/show//a", b"/cgi-bin/show", b"//a"),
        (b"/cgi-bin/sub/deep/x", b"/cgi-bin/sub/deep", b"/x"),
        (b"/cgi-bin/within", b"/cgi-bin/within", b""),
        (b"/cgi-bin/dir/deep", b"/cgi-bin/dir/deep", b""),
        (b"/cgi-bin/installed/x", b"/cgi-bin/installed", b"/x"),
        (b"/cgi-bin/sub/again", b"/cgi-bin/sub/again", b""),
        (b"/htbin/old", b"/htbin/old", b""),
    ],
)
def test_found(site: Path, path: bytes, name: bytes, info: bytes) -> None:
    script = find(ScriptDirectory(str(site)), path)
    assert (script.name, script.path_info) == (name, info)
    assert script.file == os.fsencode(site) + name


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/", 404),
        (b"/index.cgi", 404),
        (b"/cgi-bin", 404),
        (b"/cgi-bin/", 403),
        (b"/cgi-bin/sub", 403),
        (b"/cgi-bin/sub/", 403),
        (b"//cgi-bin/show", 404),
        (b"/cgi-bin//show", 404),
        (b"/cgi-bin/missing", 404),
        (b"/cgi-bin/missing/show", 404),
        (b"/cgi-bin/data.txt", 403),
        (b"/cgi-bin/data.txt/x", 403),
        (b"/cgi-bin/.hidden", 404),
        (b"/cgi-bin/.git/hook", 404),
        (b"/cgi-bin/../index.cgi", 404),
        (b"/cgi-bin/sub/../show", 404),
        (b"/cgi-bin/pipe", 403),
        (b"/cgi-bin/out", 403),
        (b"/cgi-bin/installed-data", 403),
        (b"/cgi-bin/lib/program", 403),
        (b"/cgi-bin/up/index.cgi", 403),
        (b"/cgi-bin/root/bin/sh", 403),
        (b"/cgi-bin/self", 404),
        (b"/cgi-bin/nowhere", 404),
        (b"/cgi-bin/" + b"x" * 300, 404),
        (b"/cgi-bin/sh\0ow", 404),
    ],
)
def test_refused(site: Path, path: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        find(ScriptDirectory(str(site)), path)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("out", ("/out is a link out of the directory, to {}, which is user .*'s and not the "
         "link's owner's, .* (--cgi-link-dir .* would allow it)")),
        ("lib/program", ("/lib is a link out of the directory, to {tmp}/lib, which is not a file "
         "(--cgi-link-dir {tmp}/lib would allow it)")),
        ("installed-data", "/installed-data is not a file that user .* may execute"),
        ("data.txt", "/data.txt is not a file that user .* may execute"),
        ("pipe", "/pipe is not a file that user .* may execute"),
    ],
)  # fmt: skip
def test_the_operator_is_told_why(site: Path, tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        find(ScriptDirectory(str(site)), f"/cgi-bin/{path}".encode())
    target = (site / "cgi-bin" / path).resolve()
    text = why.replace("(", r"\(").replace(")", r"\)").format(target, tmp=tmp_path)
    assert re.fullmatch(re.escape(f"{site}/cgi-bin") + text, refused.value.why)
    assert str(site).encode() not in refused.value.text


def test_links_that_the_operator_allows(site: Path, tmp_path: Path) -> None:
    scripts = site / "cgi-bin"
    foreign(scripts / "theirs", tmp_path / "lib" / "program")
    allowed = str(tmp_path / "lib") if os.geteuid() == 0 else os.path.realpath("/bin")
    directory = ScriptDirectory(str(site), [str(tmp_path / "lib"), allowed])
    for path in ("theirs", "installed", "lib/program", "show"):
        name = f"/cgi-bin/{path}".encode()
        script = find(directory, name + b"/x")
        assert (script.name, script.path_info) == (name, b"/x")
        assert script.file == os.fsencode(site) + name
    refusals = {
        "lib": 403, "lib/data": 403, "lib/missing": 404, "root/bin/sh": 403, "up/index.cgi": 403
    }  # fmt: skip
    for path, status in refusals.items():
        with pytest.raises(Refused) as refused:
            find(directory, f"/cgi-bin/{path}".encode())
        assert refused.value.status == status
    # A name that only begins alike is another directory.
    make(tmp_path / "library" / "program")
    foreign(scripts / "near", tmp_path / "library" / "program")
    with pytest.raises(Refused):
        find(ScriptDirectory(str(site), [str(tmp_path / "lib")]), b"/cgi-bin/near")


def test_directory_of_scripts(tmp_path: Path) -> None:
    make(tmp_path / "show")
    directory = ScriptDirectory(str(tmp_path))
    assert find(directory, b"/cgi-bin/show").file == os.fsencode(tmp_path / "show")
    with pytest.raises(Refused):
        find(directory, b"/show")


def test_directory_below_a_route(site: Path) -> None:
    directory = ScriptDirectory(str(site / "cgi-bin"))
    script = directory.find_below(b"app/v1/sub/deep/x".split(b"/"), 2)
    assert (script.name, script.path_info) == (b"/app/v1/sub/deep", b"/x")
    for path, status in ((b"/app/v1", 404), (b"/app/v1/", 403), (b"/app/v1/out", 403)):
        with pytest.raises(Refused) as refused:
            directory.find_below(path[1:].split(b"/"), 2)
        assert refused.value.status == status


def test_root_of_the_file_system_is_a_directory_too() -> None:
    with pytest.raises(Refused) as refused:
        find(ScriptDirectory("/"), b"/cgi-bin/no such script")
    assert refused.value.status == 404


def test_directory_through_a_link(site: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(site)
    directory = ScriptDirectory(str(tmp_path / "link"))
    assert find(directory, b"/cgi-bin/show").file == os.fsencode(site / "cgi-bin" / "show")
    assert directory.root == os.fsencode(site)


def test_script_directory_that_is_a_link_out(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "cgi-bin").symlink_to("/bin")
    there = os.path.realpath("/bin")
    with pytest.raises(ValueError, match=f"cgi-bin is a link .*: --cgi-link-dir {there} allows it"):
        ScriptDirectory(str(tmp_path / "site"))
    directory = ScriptDirectory(str(tmp_path / "site"), [there])
    assert find(directory, b"/cgi-bin/sh").file == os.fsencode(there) + b"/sh"


def test_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ScriptDirectory(str(tmp_path / "missing"))
    with pytest.raises(NotADirectoryError):
        ScriptDirectory(str(make(tmp_path / "file")))


SEGMENTS = st.sampled_from(
    [
        *"cgi-bin htbin show sub deep out up root dir within .. . .hidden".split(),
        *"installed again lib program data installed-data".split(),
        *"%2e%2e %2f index.cgi ... %00 bin sh secret".split(),
        "",
    ]
)


def test_nothing_outside_is_ever_found(site: Path) -> None:
    directory = ScriptDirectory(str(site))
    allowed = {os.fsencode(site / path) for path in (
        "cgi-bin/show", "cgi-bin/within", "cgi-bin/sub/deep", "cgi-bin/dir/deep", "htbin/old",
        "cgi-bin/installed", "cgi-bin/sub/again", "cgi-bin/dir/again",
    )}  # fmt: skip

    @given(st.lists(SEGMENTS, max_size=6))
    def check(segments: list[str]) -> None:
        target = "/" + "/".join(segments)
        try:
            decoded = split(target.encode()) or ()
            # As the server asks, and as it would if paths were not checked before.
            for path in ("/" + "/".join(decoded), target):
                assert find(directory, path.encode()).file in allowed
        except (BadPath, Refused):
            pass

    check()
