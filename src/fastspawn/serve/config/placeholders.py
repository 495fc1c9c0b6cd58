"""Where values of a request go: the ``{name}``, ``{query:name}`` and ``{form:name}`` of a route's
command and variables.

A ``{name}`` of the route's path, and any ``{query:name}`` or ``{query:name=default}`` (likewise
``form``), is replaced where it stands, in an argument or in the value of a ``--set-env``; other
braces are left alone. A value never goes through a shell: with ``--shell`` the path's values are
the script's positional parameters, in the order of the path, and the others may be in its
environment.

No request makes an argument that begins with ``-``. There is no exception after ``--``, since
that may be another program's (``env -- CMD {name}``): a value that may begin so belongs behind
something (``--name={name}``) or into the environment. Nor does it write a part of a script: a
placeholder in what ``sh -c`` or ``perl -e`` takes is refused at the start. That is a guard against
a common mistake; which other programs take an argument for more than a name, nobody can know here.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from fastspawn.serve import paths

if TYPE_CHECKING:
    from .model import RouteConfig

_SENT: Final = r"(query|form):([\w.\[\]-]+)(?:=([^{}]*))?"
_INTERPRETER: Final = re.compile(
    r"[a-z]*sh|(?:python|pypy|perl|ruby|php|lua|node|nodejs|deno|bun|Rscript)[\d.]*"
)
_EVALUATES: Final = re.compile(r"-[A-Za-z]*[ceEr]|--eval|--execute|eval")
_EVALUATES_REST: Final = re.compile(r"-[A-Za-z]*[ceEr].*|--(?:eval|execute)=.*", re.DOTALL)


class Placeholders:
    """Of one route. ``varies``: requests differ in its command line or its environment.

    Raises ValueError for a path's template, or a placeholder, that can't be.
    """

    def __init__(self, route: RouteConfig) -> None:
        names = paths.parse(route.path).names
        path = rf"({'|'.join(names)})(?:\.\.\.)?" if names else "((?!))"
        self.pattern = re.compile(rf"\{{(?:{path}|{_SENT})\}}")
        """What a placeholder looks like; groups: its name; or "query" or "form", its name there,
        and what is put in for a value that is not."""
        command = route.command
        if route.shell:
            if self._within(command[0]):
                raise ValueError('with a shell, values are "$1", "$2" ... or in the environment')
        elif self._within(command[0]):
            raise ValueError("a request can't choose the program")
        elif any(self._within(text) and re.match(r"-+\{", text) for text in command):
            raise ValueError("a request can't choose an option")
        elif any(self._within(text) and _is_script(command, i) for i, text in enumerate(command)):
            raise ValueError("a request can't write a script: give it the value as an argument")
        self.arguments = {i: text for i, text in enumerate(command) if self._within(text)}
        """Of ``route.command``, by their index."""
        self.positional = names if route.shell else ()
        """Whose values come after it."""
        self.variables = {name: text for name, text in route.set_env if self._within(text)}
        texts = (*self.arguments.values(), *self.variables.values())
        sources = {found[2] for text in texts for found in self.pattern.finditer(text)}
        self.query = "query" in sources
        """Values of the query are among them."""
        self.form = "form" in sources
        """Values of the body are."""
        if self.form and route.mode == "ws":
            raise ValueError("a WebSocket begins without a form")
        if self.form and route.mode == "jsonrpc":
            raise ValueError("a message is no form")
        self.varies = bool(self.arguments or self.variables or self.positional)

    def _within(self, text: str) -> bool:
        return self.pattern.search(text) is not None


def why_not_alike(route: RouteConfig) -> str:
    """What a request changes about the command, in words; empty: nothing but its stdin."""
    if route.mode not in ("raw", "jsonrpc"):
        return f"mode {route.mode} gives each an environment of its own"
    if route.request_env:
        return "each request has an environment of its own"
    if route.own_env:
        return "each has variables of its own"
    if Placeholders(route).varies:
        return "values of the request are in the command or its environment"
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
