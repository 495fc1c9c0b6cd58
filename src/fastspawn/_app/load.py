"""The application that MODULE:APP names, as gunicorn and uvicorn have it.

APP is a name, a dotted one, or a call with literal arguments (``create_app("production")``).
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


class LoadError(Exception):
    """Why there is no application, in one line."""


def load(target: str, default: str) -> Callable[..., Any]:
    """``default``: what APP is without one. Raises LoadError; what the application itself raises is
    not caught."""
    module_name, colon, expression = target.partition(":")
    if not module_name or (colon and not expression):
        raise LoadError("must be MODULE:APP")
    names, arguments = _parse(expression or default)
    found: Any = _import(module_name)
    place = f"module {module_name}"
    for name in names:
        if not hasattr(found, name):
            raise LoadError(f"{place} has no attribute {name}")
        found, place = getattr(found, name), name
    if arguments is not None:
        if not callable(found):
            raise LoadError(f"{place} is no function that makes an application, but {_kind(found)}")
        positional, named = arguments
        found = found(*positional, **named)
        place = f"what {place}() returns"
    if not callable(found):
        raise LoadError(f"{place} is no application: {_kind(found)} can't be called")
    return found  # type: ignore[no-any-return]


def _kind(thing: object) -> str:
    return f"a {type(thing).__name__}"


def _import(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the application wants and does not find is a matter for its own traceback.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadError(f"no module {error.name} in {here} or where Python looks") from None
        raise


def _parse(text: str) -> tuple[list[str], tuple[list[Any], dict[str, Any]] | None]:
    """The names, and the arguments if it is a call."""
    try:
        tree: Any = ast.parse(text, mode="eval").body
        arguments = None
        if isinstance(tree, ast.Call):
            named = {each.arg: ast.literal_eval(each.value) for each in tree.keywords}
            if None in named:
                raise ValueError("**")
            arguments = [ast.literal_eval(each) for each in tree.args], named
            tree = tree.func
        names: list[str] = []
        while isinstance(tree, ast.Attribute):
            names.insert(0, tree.attr)
            tree = tree.value
        if not isinstance(tree, ast.Name):
            raise ValueError("no name")
    except (SyntaxError, ValueError):
        raise LoadError(
            f"{text!r} is neither a name nor a call with literal arguments, such as create_app(1)"
        ) from None
    return [tree.id, *names], arguments  # type: ignore[return-value]
