"""``--config FILE.toml``: the file's keys and values, checked one by one.

At the top the keys are the names of ``options.OPTIONS``, and ``command``. Each ``[[route]]``
has a ``path``, perhaps ``methods``, a ``command``, and any option of a route. What is wrong is
told with the file, the line where it can be found, and the key.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, NoReturn

from fastspawn.serve import paths

from . import values
from .options import OPTIONS, Option

_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_POSITION: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class FileError(ValueError):
    """What is wrong with the file, in one line."""


def read(path: str) -> dict[str, Any]:
    """What the file sets, by field; ``command`` is text or a tuple; ``route`` a list of such dicts.

    A route's dict also has ``where``, for messages. Raises FileError.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise FileError(f"--config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_syntax(path, text, str(error))
    except RecursionError:
        raise FileError(f"{path}: nested too deeply") from None
    except ValueError as error:  # of int(), which has a limit of its own
        raise FileError(f"{path}: {error}") from error
    return _Reader(path, text).top(table)


def _refuse_syntax(path: str, text: str, message: str) -> NoReturn:
    found = _POSITION.search(message)
    line = f":{found[1] or len(text.splitlines())}" if found is not None else ""
    raise FileError(f"{path}{line}: {_POSITION.sub('', message)}")


class _Reader:
    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def top(self, table: dict[str, Any]) -> dict[str, Any]:
        known = [name for name in OPTIONS if name != "config"] + ["command"]
        given: dict[str, Any] = {}
        for key, value in table.items():
            if key == "route":
                if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
                    self._refuse(None, key, "must be written as [[route]]")
                given["route"] = [self._route(i, each) for i, each in enumerate(value)]
            elif key not in known:
                self._refuse_unknown(None, key, known)
            else:
                given[key.replace("-", "_")] = self._value(None, key, value)
        return given

    def _route(self, number: int, table: dict[str, Any]) -> dict[str, Any]:
        known = ["path", "methods", "command"]
        known += [option.name for option in OPTIONS.values() if option.of_route]
        given: dict[str, Any] = {"where": self._where(number, "")}
        for key, value in table.items():
            if key not in known:
                self._refuse_unknown(number, key, known)
            given[key.replace("-", "_")] = self._value(number, key, value)
        if "path" not in given:
            self._refuse(number, "", "a route without a path")
        if not any(name in given for name in ("command", "cgi_dir", "wsgi", "asgi")):
            self._refuse(number, "", "a route without a command")
        return given

    def _value(self, section: int | None, key: str, value: Any) -> Any:
        try:
            if key == "command":
                return _command(value)
            if key == "path":
                paths.parse(_text(value))
                return value
            if key == "methods":
                return values.methods(",".join(_texts(value)) if value else "")
            return value_of(OPTIONS[key], value)
        except ValueError as error:
            self._refuse(section, key, str(error))

    def _refuse_unknown(self, section: int | None, key: str, known: list[str]) -> NoReturn:
        import difflib

        close = difflib.get_close_matches(key.replace("_", "-"), known, 1)
        hint = f": did you mean {close[0]}?" if close else ""
        self._refuse(section, key if key.isprintable() else repr(key), f"unknown key{hint}")

    def _refuse(self, section: int | None, key: str, message: str) -> NoReturn:
        key = f"{key}: " if key else ""
        raise FileError(f"{self._where(section, key)}{key}{message}")

    def _where(self, section: int | None, key: str) -> str:
        line = self._line(section, key.removesuffix(": "))
        at = self._path if line is None else f"{self._path}:{line}"
        return f"{at}: " if section is None else f"{at}: route {section + 1}: "

    def _line(self, section: int | None, key: str) -> int | None:
        """Where ``key`` is set: the parser does not tell. None: not to be found for certain.

        With an empty key, where the section begins.
        """
        looks = re.compile(rf"""\s*(["']?){re.escape(key)}\1\s*[=.]""")
        found = []
        current: int | None = None
        routes = 0
        for number, line in enumerate(self._lines, 1):
            if (header := _HEADER.match(line)) is not None and "=" not in line:
                words = [word.strip(" \"'") for word in header[1].split(".")]
                if words == ["route"]:
                    current, routes = routes, routes + 1
                    if current == section and not key:
                        return number
                elif current == section and words[-1] == key:
                    found.append(number)
            elif key and current == section and looks.match(line):
                found.append(number)
        return found[0] if len(found) == 1 else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not an array of text")
    return [_text(each) for each in value]


def _name(text: str, marks: str) -> str:
    """A key that is to be the name of something, which ends before any of ``marks``."""
    if any(mark in text for mark in marks):
        raise ValueError(f"{text!r} is not a name")
    return text


def _command(value: Any) -> str | tuple[str, ...]:
    command = value if isinstance(value, str) else tuple(_texts(value))
    if not command:
        raise ValueError("nothing to run")
    return command


def value_of(option: Option, value: Any) -> Any:
    """The value of an option, from one as TOML has it. Raises ValueError."""
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value
    if option.kind == "list":
        if option.name == "set-env" and isinstance(value, dict):
            value = [f"{_name(name, '=')}={_text(each)}" for name, each in value.items()]
        if option.name == "header" and isinstance(value, dict):
            value = [f"{_name(name, ':')}: {_text(each)}" for name, each in value.items()]
        if option.name == "rlimit" and isinstance(value, dict):
            value = [f"{_name(name, '=')}={each}" for name, each in value.items()]
        return [option.convert(each) for each in _texts(value)]
    if option.kind == "text":
        if option.name == "status" and isinstance(value, dict):
            value = ",".join(f"{_name(name, '=,')}={each}" for name, each in value.items())
        return option.convert(_text(value))
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a {option.kind}")
    if option.kind in ("number", "size") and isinstance(value, float):
        raise ValueError(f"{value!r} is not a whole number")
    if option.kind == "number" and isinstance(value, str) and value != "none":
        raise ValueError(f"{value!r} is text, not a number")
    return option.convert(str(value))
