"""Request targets, path templates, and what may come of them in a command."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastspawn.serve import paths
from fastspawn.serve.config.model import RouteConfig
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.routes.filling import Filling
from fastspawn.serve.strategies import environment


@pytest.mark.parametrize(
    ("target", "segments"),
    [
        (b"/", [""]),
        (b"/a/b", ["a", "b"]),
        (b"/a/b/", ["a", "b", ""]),
        (b"/a?b=/../c", ["a"]),
        (b"/?", [""]),
        (b"/%61%20b", ["a b"]),
        (b"/%C3%A9", ["\u00e9"]),
        (b"/%252e%252e", ["%2e%2e"]),
        (b"/a+b", ["a+b"]),
        (b"//a///b//", ["a", "b", ""]),
        (b"/...", ["..."]),
        (b"/.a/..b", [".a", "..b"]),
        (b"/a%5cb", ["a\\b"]),
        (b"http://host:80/a/b?c", ["a", "b"]),
        (b"HTTP://host", [""]),
        (b"http://host?x", [""]),
    ],
)
def test_split(target: bytes, segments: list[str]) -> None:
    assert paths.split(target) == tuple(segments)


@pytest.mark.parametrize("target", [b"*", b"", b"host:80", b"a/b", b"mailto:x"])
def test_no_path(target: bytes) -> None:
    assert paths.split(target) is None


@pytest.mark.parametrize(
    "target",
    [
        b"/..",
        b"/../etc",
        b"/a/..",
        b"/a/./b",
        b"/%2e%2E/x",
        b"/.%2e",
        b"//..//",
        b"http://host/../x",
        b"/a%2fb",
        b"/..%2F..",
        b"/a%00b",
        b"/a%0ab",
        b"/a%7f",
        b"/%",
        b"/%2",
        b"/%zz",
        b"/%ff",
        b"/%c0%ae",
        b"/%ed%a0%80",
        b"/\xff",
        b"/a#b",
    ],
)
def test_bad_path(target: bytes) -> None:
    with pytest.raises(paths.BadPath):
        paths.split(target)


FREE = {
    b"/a%2fb": ("a/b",),
    b"/a//b%2F%2fc/": ("a", "b//c", ""),
    b"/%2F": ("/",),
    b"/caf%E9/%2f": ("caf\udce9", "/"),
    b"/%ff": ("\udcff",),
    b"/%c0%ae": ("\udcc0\udcae",),
    b"/\xff": ("\udcff",),
    b"http://host/%2f?%2f": ("/",),
}


@pytest.mark.parametrize("target", FREE)
def test_a_path_that_nobody_but_a_script_looks_at(target: bytes) -> None:
    assert paths.split(target, free=True) == FREE[target]
    with pytest.raises(paths.FreePath):
        paths.split(target)


@pytest.mark.parametrize(
    "target",
    [
        *(b"/%2f..", b"/a%2F..%2Fb", b"/..%2F..", b"/%2e%2e%2f", b"/a%2f.", b"/.%2fa", b"/../%2f"),
        *(b"/%ff/..", b"/%2f%00", b"/%2f%0a", b"/%ff%00", b"/%2f%", b"/%2f%zz", b"/%2f#"),
    ],
)
def test_a_bad_path_for_scripts_too(target: bytes) -> None:
    with pytest.raises(paths.BadPath) as bad:
        paths.split(target, free=True)
    assert not isinstance(bad.value, paths.FreePath)


PIECES = st.sampled_from(
    [b"/", b"//", b".", b"..", b"%2e", b"%2F", b"%00", b"%0a", b"%c3%a9", b"%ff", b"%25", b"%",
     b"a", b"?", b"#", b"\\", b"http://x", b"\xc0\xaf"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=3)).map(b"".join))
def test_whatever_comes_no_segment_leads_anywhere(rest: bytes) -> None:
    try:
        segments = paths.split(b"/" + rest)
    except paths.BadPath:
        return
    assert segments is not None
    assert all(segments[:-1])
    for segment in segments:
        assert segment not in (".", "..")
        assert not re.search(r"[/\0-\x1f\x7f]", segment)
        segment.encode()


@given(st.lists(PIECES | st.binary(max_size=3)).map(b"".join))
def test_whatever_comes_for_a_script_does_not_lead_upwards(rest: bytes) -> None:
    target = b"/" + rest
    try:
        plain = paths.split(target)
    except paths.BadPath as bad:
        plain = None
        strange = isinstance(bad, paths.FreePath)
    try:
        segments = paths.split(target, free=True)
    except paths.BadPath:
        assert plain is None
        return
    assert segments is not None
    assert segments == plain if plain is not None else strange
    whole = "/".join(segments)
    assert not {".", ".."} & set(whole.split("/"))
    assert not re.search(r"[\0-\x1f\x7f]", whole)
    assert os.fsdecode(whole.encode(errors="surrogateescape")) == whole


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "",
        "/a//b",
        "/a/../b",
        "/.",
        "/a%20b",
        "/a?b",
        "/a#b",
        "/a b",
        "/{a}b",
        "/a{b}",
        "/{}",
        "/{a-b}",
        "/{1}",
        "/{a...}/b",
        "/{a}/{a}",
        "/{a",
        "/{a}}",
        "/\udcff",
    ],
)
def test_bad_template(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        paths.parse(text)


def router(*lines: str) -> paths.Router[str]:
    made: paths.Router[str] = paths.Router()
    for line in lines:
        methods, _, path = line.rpartition(" ")
        made.add(paths.parse(path), tuple(methods.split(",")) if methods else None, line)
    return made


def found(made: paths.Router[str], request: str) -> object:
    method, target = request.encode().split(b" ")
    segments = paths.split(target)
    assert segments is not None
    result = made.find(method, segments)
    return (result.what, result.values) if isinstance(result, paths.Found) else result


def test_the_most_specific_template_counts_whatever_the_order() -> None:
    lines = ["/{all...}", "/user/{name}", "/user/me", "/{one}/{two}", "/user/{name}/{rest...}"]
    for made in (router(*lines), router(*reversed(lines))):
        assert found(made, "GET /user/me") == ("/user/me", {})
        assert found(made, "GET /user/you") == ("/user/{name}", {"name": "you"})
        assert found(made, "GET /a/b") == ("/{one}/{two}", {"one": "a", "two": "b"})
        assert found(made, "GET /user/me/") == (
            "/user/{name}/{rest...}",
            {"name": "me", "rest": ""},
        )
        assert found(made, "GET /user/me/a/b") == (
            "/user/{name}/{rest...}",
            {"name": "me", "rest": "a/b"},
        )
        # A literal that leads nowhere is no reason not to look elsewhere.
        assert found(made, "GET /user/") == ("/{all...}", {"all": "user/"})
        assert found(made, "GET /") == ("/{all...}", {"all": ""})


def test_a_placeholder_is_never_empty_and_a_trailing_slash_counts() -> None:
    made = router("/a", "/b/{x}", "/c/{rest...}", "/d/")
    assert found(made, "GET /a/") == ()
    assert found(made, "GET /b/") == ()
    assert found(made, "GET /b") == ()
    assert found(made, "GET /c") == ("/c/{rest...}", {"rest": ""})
    assert found(made, "GET /c/") == ("/c/{rest...}", {"rest": ""})
    assert found(made, "GET /d") == ()
    assert found(made, "GET /d/") == ("/d/", {})


def test_a_program_and_what_is_below_it_are_one_route() -> None:
    made = router("/app/{rest...}", "GET /own/{rest...}", "/own", "/{one}", "/{all...}")
    for path, rest in (("/app", ""), ("/app/", ""), ("/app/a/", "a/")):
        assert found(made, f"GET {path}") == ("/app/{rest...}", {"rest": rest})
    # A template for the very path goes before, whatever it begins with.
    assert found(made, "GET /own") == ("/own", {})
    assert found(made, "GET /apps") == ("/{one}", {"one": "apps"})
    assert found(router("POST /a/{...}", "GET /{x}"), "GET /a") == ("GET /{x}", {"x": "a"})
    assert found(router("/a/{b}/{...}"), "GET /a/") == ()
    assert found(router("/a/{b}/{...}"), "GET /a") == ()


def test_methods() -> None:
    made = router("GET /a", "POST,PUT /a", "DELETE /{x}", "/b", "HEAD /h", "GET /h")
    assert found(made, "GET /a") == ("GET /a", {})
    assert found(made, "HEAD /a") == ("GET /a", {})
    assert found(made, "PUT /a") == ("POST,PUT /a", {})
    # Another template that fits has it.
    assert found(made, "DELETE /a") == ("DELETE /{x}", {"x": "a"})
    assert found(made, "PATCH /a") == (b"DELETE", b"GET", b"HEAD", b"POST", b"PUT")
    assert found(made, "GET /x") == (b"DELETE",)
    assert found(made, "BREW /b") == ("/b", {})
    assert found(made, "HEAD /h") == ("HEAD /h", {})


def test_two_for_the_same() -> None:
    for lines in (["/a", "/a"], ["GET /{x}", "GET /{y}"], ["/{a...}", "/{...}"]):
        with pytest.raises(ValueError, match="two routes for"):
            router(*lines)
    router("/a", "GET /a", "/{x}", "/{x...}")


def test_many_slashes_cost_no_depth() -> None:
    made = router("/{a}/{b}/{rest...}", "/x/{b}/{rest...}")
    segments = paths.split(b"/x/y" + b"/z" * 30000)
    assert segments is not None
    result = made.find(b"GET", segments)
    assert isinstance(result, paths.Found)
    assert len(result.values["rest"]) == 59999


# ---- filling


def fill(command: list[str], values: dict[str, str], **more: object) -> tuple[str, ...]:
    path = "".join(f"/{{{name}}}" for name in values)
    route = RouteConfig(path=path, command=tuple(command), **more)  # type: ignore[arg-type]
    return Filling(route).fill(values, b"")[0]


def test_values_go_where_they_are_named() -> None:
    values = {"a": "1", "ab": "2"}
    assert fill(["x", "{a}", "--n={ab}", "{a}{ab}", "{a...}"], values) == (
        *("x", "1", "--n=2", "12", "1"),
    )  # fmt: skip
    # What is no placeholder of the path stays, and what was put in is not looked through.
    assert fill(["awk", "{print $1}", "{abc}", "{a}"], {"a": "{ab}", "ab": "{a}"}) == (
        *("awk", "{print $1}", "{abc}", "{ab}"),
    )  # fmt: skip
    assert fill(["x", "{a}"], {"a": "$(id); `id` 'x' \"y\" \\"})[1] == "$(id); `id` 'x' \"y\" \\"


def test_no_request_makes_an_option() -> None:
    for command in (["x", "{a}"], ["x", "{a}b"], ["env", "--", "x", "{a}"], ["x", "--", "{a}"]):
        with pytest.raises(Refused, match="hyphen"):
            fill(command, {"a": "-rf"})
    assert fill(["x", "--name={a}", "b{a}"], {"a": "-rf"}) == ("x", "--name=-rf", "b-rf")
    assert fill(["x", "-n{a}"], {"a": "-rf"}) == ("x", "-n-rf")
    with pytest.raises(Refused, match="hyphen"):
        fill(["x", "{a}{b}"], {"a": "", "b": "-rf"})
    for command in (["x", "-{a}"], ["x", "--{a}"]):
        with pytest.raises(ValueError, match="choose an option"):
            fill(command, {"a": "b"})


def test_no_request_chooses_the_program() -> None:
    for program in ("{a}", "/bin/{a}"):
        with pytest.raises(ValueError, match="choose the program"):
            fill([program], {"a": "ls"})


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "echo {a}"],
        ["/bin/bash", "-ec", "echo '{a}'"],
        ["env", "X=1", "dash", "-e", "-c", "{a}"],
        ["python3.11", "-W", "ignore", "-c", "print('{a}')"],
        ["perl", "-ne", "print if /{a}/"],
        ["perl", "-eprint '{a}'"],
        ["node", "--eval=console.log('{a}')"],
        ["php", "-r", "echo '{a}';"],
    ],
    ids=lambda command: command[0],
)
def test_no_request_writes_a_script(command: list[str]) -> None:
    with pytest.raises(ValueError, match="write a script"):
        fill(command, {"a": "b"})


def test_a_script_may_have_arguments() -> None:
    for command in (
        ["sh", "-c", 'echo "$1"', "sh", "{a}"],
        ["sh", "script", "{a}"],
        ["python3", "-m", "module", "--name={a}"],
        ["perl", "-ne", "print", "{a}"],
        ["git", "-c", "{a}"],
        ["cut", "-c", "{a}"],
    ):
        assert "b" in fill(command, {"a": "b"})[-1]


def test_shell() -> None:
    script = 'echo "$1 $2"'
    assert fill([script], {"a": "1", "b": "2"}, shell=True) == (
        *("/bin/sh", "-c", script, "sh", "1", "2"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="with a shell"):
        fill(["echo {a}"], {"a": "1"}, shell=True)
    with pytest.raises(Refused, match="hyphen"):
        fill([script], {"a": "-e"}, shell=True)


def test_environment() -> None:
    environ = {"PATH": "/p", "LC_TIME": "C", "HOME": "/h", "AWS_KEY": "k", "AWS_ID": "i"}
    assert environment.base(RouteConfig(), environ) == environ
    assert environment.base(RouteConfig(clear_env=True), environ) == {"PATH": "/p", "LC_TIME": "C"}
    assert environment.base(RouteConfig(pass_env=("AWS_*",)), environ) == {
        "PATH": "/p", "LC_TIME": "C", "AWS_KEY": "k", "AWS_ID": "i",
    }  # fmt: skip
    assert environment.base(RouteConfig(pass_env=("*",)), environ) == environ
    assert environment.base(RouteConfig(clear_env=True), {}).keys() == {"PATH"}
    route = RouteConfig(path="/{a}", clear_env=True, set_env=(("X", "<{a}>"), ("PATH", "/mine")))
    env = Filling(route).fill({"a": "-$(id)"}, b"")[1]
    assert (env["X"], env["PATH"]) == ("<-$(id)>", "/mine")
    assert Filling(route).env["X"] == "<{a}>"
