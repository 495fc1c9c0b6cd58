"""The page that costs some 20 ms: a table of 50 KB whose cells are worked out, escaped and rendered
by a template engine. What it has to be is known without one.
"""

from __future__ import annotations

from html import escape

HELLO = "hi\n"
ROWS, COLUMNS = 400, 5


def steps(number: int) -> int:
    """How many it takes to 1: halved if it is even, else three times it and one more."""
    count = 0
    while number > 1:
        number = 3 * number + 1 if number % 2 else number // 2
        count += 1
    return count


def cells() -> list[list[str]]:
    numbers = [range(row * COLUMNS + 1, (row + 1) * COLUMNS + 1) for row in range(ROWS)]
    return [[f"{number} > {steps(number)}" for number in row] for row in numbers]


def expected() -> str:
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in cells()]
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<!doctype html>\n<table>\n{body}</table>\n"
