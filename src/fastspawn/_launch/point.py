"""Where a program's own imports have run: told by its source alone.

Above the point are imports, definitions, documentation, assignments of constants, and these below
``if`` (of the kind of system or of ``TYPE_CHECKING``) and ``try``: what is the same for every
request as long as the program is.
"""

from __future__ import annotations

import _ast
from collections.abc import Callable, Sequence
from typing import Any

_IMPORTS = _ast.Import, _ast.ImportFrom
_DEFINITIONS = _ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef, _ast.Pass
_DISPLAYS = _ast.Tuple, _ast.List, _ast.Set
_SYSTEM = {("sys", "version_info"), ("sys", "platform"), ("sys", "byteorder"), ("os", "name")}
"""What ``if`` may ask about, besides ``TYPE_CHECKING`` and constants."""


def point(body: Sequence[Any]) -> int:
    """The index of the first statement below.

    Raises ValueError where there is no such point: nothing is imported above it, or nothing is
    below it.
    """
    found = next((i for i, each in enumerate(body) if not _is_above(each)), len(body))
    if not any(_imports(each) for each in body[:found]):
        first = f"line {body[found].lineno}" if found < len(body) else "its end"
        raise ValueError(f"nothing is imported above {first}, where it begins to run")
    if found == len(body):
        raise ValueError("it has nothing but imports and definitions: nothing is left to run")
    return found


def _is_above(node: Any) -> bool:
    for kinds, holds in _KINDS:
        if isinstance(node, kinds):
            return holds(node)
    return type(node).__name__ == "TypeAlias"  # Python 3.12


def _imports(node: Any) -> bool:
    """Something, perhaps, of a statement above the point."""
    if isinstance(node, _ast.If | _ast.Try):
        handlers = [each for one in getattr(node, "handlers", ()) for each in one.body]
        return any(map(_imports, [*node.body, *handlers, *node.orelse]))
    return isinstance(node, _IMPORTS) and getattr(node, "module", "") != "__future__"


def _of_assignment(node: Any) -> bool:
    targets = getattr(node, "targets", None) or [node.target]
    return all(map(_is_place, targets)) and (node.value is None or _is_constant(node.value))


def _is_place(node: Any) -> bool:
    """A name, or a part of what one names: ``os.environ["OMP_NUM_THREADS"]``."""
    if isinstance(node, _ast.Subscript):
        return _is_place(node.value) and _is_constant(node.slice)
    if isinstance(node, _ast.Attribute):
        return _is_place(node.value)
    return isinstance(node, _ast.Name)


def _is_constant(node: Any) -> bool:
    """As ``ast.literal_eval`` has it, but for sums."""
    if isinstance(node, _ast.UnaryOp):
        return _is_constant(node.operand)
    if isinstance(node, _ast.Dict):
        return all(key is not None and _is_constant(key) for key in node.keys) and all(
            map(_is_constant, node.values)
        )
    if isinstance(node, _DISPLAYS):
        return all(map(_is_constant, node.elts))
    return isinstance(node, _ast.Constant)


def _of_if(node: Any) -> bool:
    return _is_alike(node.test) and all(map(_is_above, [*node.body, *node.orelse]))


def _is_alike(test: Any) -> bool:
    """Is it the same for every request? (``__name__`` is, but what follows is the program.)"""
    if isinstance(test, _ast.BoolOp):
        return all(map(_is_alike, test.values))
    if isinstance(test, _ast.UnaryOp):
        return _is_alike(test.operand)
    if isinstance(test, _ast.Compare):
        return all(_is_alike(each) for each in (test.left, *test.comparators))
    if isinstance(test, _ast.Subscript):
        return _is_alike(test.value)
    return _is_constant(test) or _says_type_checking(test) or _is_of_system(test)


def _says_type_checking(node: Any) -> bool:
    return "TYPE_CHECKING" in (getattr(node, "id", ""), getattr(node, "attr", ""))


def _is_of_system(node: Any) -> bool:
    of = getattr(getattr(node, "value", None), "id", "")
    return (of, getattr(node, "attr", "")) in _SYSTEM


def _of_try(node: Any) -> bool:
    handlers = [each for one in node.handlers for each in one.body]
    return all(map(_is_above, [*node.body, *handlers, *node.orelse, *node.finalbody]))


def _always(node: Any) -> bool:
    return True


_KINDS: tuple[tuple[Any, Callable[[Any], bool]], ...] = (
    ((*_IMPORTS, *_DEFINITIONS), _always),
    (_ast.Expr, lambda node: isinstance(node.value, _ast.Constant)),
    ((_ast.Assign, _ast.AnnAssign), _of_assignment),
    (_ast.If, _of_if),
    (_ast.Try, _of_try),
)
