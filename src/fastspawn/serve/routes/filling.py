"""From a route and the values in a request's path, query and form to a command line and an
environment.

Where a value may go is settled before (``config/placeholders.py``); what stands there is not
looked at again: braces in what was put in are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastspawn.serve.config.placeholders import Placeholders
from fastspawn.serve.strategies import command

from .urlencoded import bad
from .urlencoded import values as decoded

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig


class Filling:
    """The command line and the environment of one route. ``varies``: requests differ in them.

    Raises ValueError for a template, or a placeholder, that can't be.
    """

    def __init__(self, route: RouteConfig) -> None:
        places = Placeholders(route)
        self.varies = places.varies
        self.argv = command.argv_of(route)
        """As it is without a request."""
        self.env = command.env_of(route)
        """Likewise. Not to be changed."""
        self.form = places.form
        """It wants the request's body, too."""
        self._query = places.query
        self._hole = places.pattern
        self._positional = places.positional
        before = len(route.sandbox or ())
        self._arguments = {before + i: text for i, text in places.arguments.items()}
        self._variables = places.variables

    def fill(
        self, values: Mapping[str, str], query: bytes, form: bytes = b""
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """The command line and the environment for one request. ``values``: of its path; ``query``,
        ``form``: as they were sent. Raises Refused."""
        if not self.varies:
            return self.argv, self.env
        sent = {
            "query": decoded(query, "query") if self._query else {},
            "form": decoded(form, "form") if self.form else {},
        }

        def value(found: re.Match[str]) -> str:
            path, where, name, default = found.groups()
            return values[path] if path else _sent(sent[where], name, default, where)

        def filled(text: str) -> str:
            return self._hole.sub(value, text)

        argv = list(self.argv)
        for i, text in self._arguments.items():
            argv[i] = _argument(filled(text), text)
        argv += [_argument(values[name], "") for name in self._positional]
        env = self.env
        if self._variables:
            env = env | {name: filled(text) for name, text in self._variables.items()}
        return tuple(argv), env


def _sent(sent: Mapping[str, str | None], name: str, default: str | None, where: str) -> str:
    value = sent.get(name, default)
    if value is None:
        many = "twice" if name in sent else "not"
        raise bad(f"{name} is {many} in the {where}")
    return value


def _argument(text: str, template: str) -> str:
    if text.startswith("-") and not template.startswith("-"):
        raise bad("an argument may not begin with a hyphen")
    return text
