"""What is known of a request once its route is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Match:
    """Plain values: the route makes it, the exchange of its mode reads it.

    ``argv`` and ``env`` are the command line and the environment with the request's values in
    them, as soon as these are known; ``env`` may be shared and is not to be changed.
    ``fields``: the header fields in order, their names in lower case, if the route's mode wants
    them.
    """

    __slots__ = ("argv", "env", "fields", "segments", "values")

    def __init__(
        self,
        segments: tuple[str, ...],
        values: Mapping[str, str],
        argv: tuple[str, ...],
        env: Mapping[str, str],
        fields: list[tuple[bytes, bytes]] | None,
    ) -> None:
        self.segments = segments
        """Of the path, decoded and checked: see ``paths.py``."""
        self.values = values
        """Of the placeholders in the route's path."""
        self.argv = argv
        self.env = env
        self.fields = fields or []

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the fields say so: one in chunks has none."""
        for name, value in self.fields:
            if name == b"content-length":
                return int(value)
        return None
