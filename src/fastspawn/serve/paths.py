"""Request targets and path templates: no I/O, no event loop, nothing of HTTP but RFC 9112 3.2.

What a request's path may be is decided here, before any of it can reach a command:

- it is decoded once; a bad escape, an encoded slash, a control character (NUL among them) and
  what is not UTF-8 are refused;
- a segment ``.`` or ``..`` is refused, written or encoded; slashes in a row count as one. So no
  value leads out of a directory that it is put behind, and none is an absolute path;
- the query is no part of it.

What a CGI script gets as PATH_INFO may hold encoded slashes and any bytes but control characters:
nobody but the script looks at it (``split`` with ``free``). There, too, nothing leads upwards.

Of the templates that fit, the most specific one counts, whatever their order: from the left, a
literal segment goes before ``{name}``, and that before ``{name...}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")

ANY_PATH: Final = "/{...}"
"""The template that fits every path and names nothing."""

# RFC 9112 section 3.2.2: to be accepted from any client, not only from those of a proxy.
_ABSOLUTE: Final = re.compile(rb"[a-z][a-z0-9+.\-]*://[^/?]*", re.IGNORECASE)
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9a-f]{2})", re.IGNORECASE)
_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")
_SLASHES: Final = re.compile("//+")
_HOLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)?(\.\.\.)?\}", re.ASCII)


class BadPath(ValueError):
    """Why a request's path is refused, in a few words."""


class FreePath(BadPath):
    """It would be one with ``free``."""


def written(target: bytes) -> bytes:
    """The path of a request's target, as it is there; empty: it is not about a path (``*``)."""
    if target[:1] != b"/":
        found = _ABSOLUTE.match(target)
        if found is None:
            return b""
        target = b"/" + target[found.end() :].removeprefix(b"/")
    return target.partition(b"?")[0]


def split(target: bytes, *, free: bool = False) -> tuple[str, ...] | None:
    """The decoded segments of a request target's path: ``/a/b/`` has ``a``, ``b`` and an empty one.

    With ``free`` a segment may hold slashes, which were encoded, and bytes that are not UTF-8, as
    ``os.fsdecode`` has them. None: the target is not about a path (``*``). Raises BadPath, and
    FreePath for what is one only with ``free``.
    """
    path = written(target)
    if not path:
        return None
    if b"#" in path:
        raise BadPath("a fragment in the path")
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise BadPath("a bad escape in the path")
        if _SLASH.search(path):
            if free:
                return _free(path)
            raise FreePath("an encoded slash in the path")
        path = unquote_to_bytes(path)
    try:
        text = path.decode(errors="surrogateescape" if free else "strict")
    except UnicodeDecodeError as error:
        raise FreePath("the path is not UTF-8") from error
    if _CONTROL.search(text):
        raise BadPath("a control character in the path")
    if "//" in text:
        text = _SLASHES.sub("/", text)
    segments = tuple(text[1:].split("/"))
    if "." in segments or ".." in segments:
        raise BadPath("a dot segment in the path")
    return segments


def _free(path: bytes) -> tuple[str, ...]:
    """The segments of a path with encoded slashes."""
    parts = re.sub(rb"//+", b"/", path)[1:].split(b"/")
    segments = tuple(unquote_to_bytes(part).decode(errors="surrogateescape") for part in parts)
    whole = "/".join(segments)
    if _CONTROL.search(whole):
        raise BadPath("a control character in the path")
    if not {".", ".."}.isdisjoint(whole.split("/")):
        raise BadPath("a dot segment in the path")
    return segments


class Hole(NamedTuple):
    """A place in a template. ``rest``: it takes all that follows, also nothing, and where it is
    a directory's, also the path without the slash at its end: ``/a/{...}`` fits ``/a``."""

    name: str
    """Empty: nobody wants to know."""
    rest: bool


@dataclass(frozen=True)
class Template:
    """``/user/{name}``, ``/files/{path...}``."""

    text: str
    segments: tuple[str | Hole, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.segments if isinstance(part, Hole) and part.name)

    @property
    def fits_all(self) -> bool:
        first = self.segments[0]
        return isinstance(first, Hole) and first.rest


def parse(text: str) -> Template:
    """The template that ``text`` describes. Raises ValueError."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} does not begin with a slash")
    if found := re.search(r"[?#%\0-\x20\x7f]", text):
        raise ValueError(f"{found[0]!r} in {text!r}: a path is written decoded, without a query")
    if re.search("[\ud800-\udfff]", text):
        raise ValueError(f"{text!r} is not UTF-8")  # and could not be told of in figures
    parts = text[1:].split("/")
    segments = tuple(_segment(part, text, last=i == len(parts) - 1) for i, part in enumerate(parts))
    template = Template(text, segments)
    if len(set(template.names)) != len(template.names):
        raise ValueError(f"a name occurs twice in {text!r}")
    return template


def _segment(part: str, text: str, *, last: bool) -> str | Hole:
    if (found := _HOLE.fullmatch(part)) is not None:
        hole = Hole(found[1] or "", found[2] is not None)
        if hole.rest and not last:
            raise ValueError(f"{part} must come last in {text!r}")
        if not hole.name and not hole.rest:
            raise ValueError(f"a name is missing in {text!r}")
        return hole
    if "{" in part or "}" in part:
        raise ValueError(f"{part!r} in {text!r}: a placeholder is a whole segment, as /{{name}}/")
    if part in (".", "..") or (not part and not last):
        raise ValueError(f"the segment {part!r} in {text!r} never comes in a request")
    return part


class _Leaf(Generic[T]):
    """Where templates end: what is there for which method."""

    def __init__(self) -> None:
        self.by_method: dict[bytes, tuple[T, tuple[str, ...]]] = {}
        self.any: tuple[T, tuple[str, ...]] | None = None


class _Node(Generic[T]):
    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.one: _Node[T] | None = None
        self.here: _Leaf[T] | None = None
        self.rest: _Leaf[T] | None = None


@dataclass(frozen=True)
class Found(Generic[T]):  # no NamedTuple: Python 3.10 has no generic ones
    what: T
    values: dict[str, str]


class Router(Generic[T]):
    """Finds what was added for a path and a method."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: Template, methods: tuple[str, ...] | None, what: T) -> None:
        """``methods`` None: any. GET includes HEAD, unless another has HEAD itself.

        Raises ValueError if there is one for the same path and method.
        """
        node = self._root
        rest = False
        for part in template.segments:
            if isinstance(part, str):
                node = node.literals.setdefault(part, _Node())
            elif part.rest:
                rest = True
            else:
                node.one = node = node.one or _Node()
        if rest:
            leaf = node.rest = node.rest or _Leaf()
        else:
            leaf = node.here = node.here or _Leaf()
        # Anonymous places have no value, so a name for each.
        names = tuple(part.name for part in template.segments if isinstance(part, Hole))
        if methods is None:
            if leaf.any is not None:
                raise ValueError(f"two routes for {template.text}")
            leaf.any = what, names
            return
        for method in methods:
            if method.encode() in leaf.by_method:
                raise ValueError(f"two routes for {method} {template.text}")
            leaf.by_method[method.encode()] = what, names

    def find(self, method: bytes, segments: tuple[str, ...]) -> Found[T] | tuple[bytes, ...]:
        """What is there; else the methods that are allowed: none, if nothing is."""
        allowed: set[bytes] = set()
        for leaf, values in _leaves(self._root, segments, 0, ()):
            there = leaf.by_method.get(method)
            if there is None and method == b"HEAD":
                there = leaf.by_method.get(b"GET")
            there = there or leaf.any
            if there is not None:
                what, names = there
                return Found(what, {n: v for n, v in zip(names, values, strict=True) if n})
            allowed |= leaf.by_method.keys()
        if b"GET" in allowed:
            allowed.add(b"HEAD")
        return tuple(sorted(allowed))


def _leaves(
    node: _Node[T], segments: tuple[str, ...], i: int, values: tuple[str, ...]
) -> Iterator[tuple[_Leaf[T], tuple[str, ...]]]:
    """The leaves that fit, the most specific first. As deep as the templates, not the path."""
    if i == len(segments):
        if node.here is not None:
            yield node.here, values
        if node.rest is not None:
            yield node.rest, (*values, "")
        return
    segment = segments[i]
    if (literal := node.literals.get(segment)) is not None:
        yield from _leaves(literal, segments, i + 1, values)
    if node.one is not None and segment:
        yield from _leaves(node.one, segments, i + 1, (*values, segment))
    if node.rest is not None:
        yield node.rest, (*values, "/".join(segments[i:]))
