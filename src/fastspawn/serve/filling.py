"""From a route and the values in a request's path to a command line and an environment.

A ``{name}`` of the route's path is replaced where it stands, in an argument or in the value of
a ``--set-env``; other braces are left alone, and so are braces in what was put in. A value never
goes through a shell: with ``--shell`` the values are the script's positional parameters, in the
order of the path.

No request makes an argument that begins with ``-``. There is no exception after ``--``, since
that may be another program's (``env -- CMD {name}``): a value that may begin so belongs behind
something (``--name={name}``) or into the environment. Nor does it write a part of a script: a
placeholder in what ``sh -c`` or ``perl -e`` takes is refused at the start. That is a guard against
a common mistake; which other programs take an argument for more than a name, nobody can know here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from . import environment, paths

if TYPE_CHECKING:
    from .config import RouteConfig

SHELL: Final = "/bin/sh"

_INTERPRETER: Final = re.compile(
    r"[a-z]*sh|(?:python|pypy|perl|ruby|php|lua|node|nodejs|deno|bun|Rscript)[\d.]*"
)
_EVALUATES: Final = re.compile(r"-[A-Za-z]*[ceEr]|--eval|--execute|eval")
_EVALUATES_REST: Final = re.compile(r"-[A-Za-z]*[ceEr].*|--(?:eval|execute)=.*", re.DOTALL)


class BadValue(ValueError):
    """Why a value is refused, in a few words."""


class Filling:
    """The command line and the environment of one route. ``varies``: requests differ in them.

    Raises ValueError for a template, or a placeholder, that can't be.
    """

    def __init__(self, route: RouteConfig) -> None:
        names = paths.parse(route.path).names
        self._hole = re.compile(rf"\{{({'|'.join(names)})(?:\.\.\.)?\}}") if names else None
        command = route.command
        if route.shell:
            if self._varies(command[0]):
                raise ValueError('with a shell, values are "$1", "$2" ... or in the environment')
            command = (SHELL, "-c", *command, "sh")
        elif self._varies(command[0]):
            raise ValueError("a request can't choose the program")
        elif any(self._varies(text) and re.match(r"-+\{", text) for text in command):
            raise ValueError("a request can't choose an option")
        elif any(self._varies(text) and _is_script(command, i) for i, text in enumerate(command)):
            raise ValueError("a request can't write a script: give it the value as an argument")
        self._positional = names if route.shell else ()
        sandbox = route.sandbox or ()
        self.argv = (*sandbox, *command)
        """As it is without a request."""
        self.env = environment.base(route) | dict(route.set_env)
        """Likewise. Not to be changed."""
        self._arguments = {
            i: text for i, text in enumerate(command, len(sandbox)) if self._varies(text)
        }
        if route.shell:
            self._arguments = {}
        self._variables = {name: text for name, text in route.set_env if self._varies(text)}
        self.varies = bool(self._arguments or self._variables or self._positional)

    def _varies(self, text: str) -> bool:
        return self._hole is not None and self._hole.search(text) is not None

    def fill(self, values: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
        """The command line and the environment for one request. Raises BadValue."""
        if not self.varies:
            return self.argv, self.env
        hole = self._hole
        assert hole is not None

        def filled(text: str) -> str:
            return hole.sub(lambda found: values[found[1]], text)

        argv = list(self.argv)
        for i, text in self._arguments.items():
            argv[i] = _argument(filled(text), text)
        argv += [_argument(values[name], "") for name in self._positional]
        env = self.env
        if self._variables:
            env = env | {name: filled(text) for name, text in self._variables.items()}
        return tuple(argv), env


def why_not_alike(route: RouteConfig, filling: Filling) -> str:
    """What a request changes about the command, in words; empty: nothing but its stdin."""
    if route.mode != "raw":
        return f"mode {route.mode} gives each an environment of its own"
    if filling.varies:
        return "the path is in the command or its environment"
    return ""


def _is_script(command: tuple[str, ...], i: int) -> bool:
    """Argument ``i`` is, or holds, a program for an interpreter that stands before it."""
    before = [os.path.basename(word) for word in command[:i]]
    found = [j for j, word in enumerate(before) if _INTERPRETER.fullmatch(word)]
    if not found:
        return False
    if found[0] < i - 1 and _EVALUATES.fullmatch(command[i - 1]):
        return True
    options_only = all(word.startswith("-") for word in command[found[-1] + 1 : i])
    return options_only and _EVALUATES_REST.fullmatch(command[i]) is not None


def _argument(text: str, template: str) -> str:
    if text.startswith("-") and not template.startswith("-"):
        raise BadValue("an argument may not begin with a hyphen")
    return text
