"""What is wrong with a value, as argparse shows it. A file of its own: ProcessApp reads values
without a command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def shown(convert: Callable[[str], T]) -> Callable[[str], T]:
    """For ``type=``: argparse shows the message of an ArgumentTypeError, and of no other."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from error

    return converted
