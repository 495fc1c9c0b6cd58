"""``python -m bench.peers``: builds what every row needs, and says what was found or is missing."""

from __future__ import annotations

import sys

from bench import rows
from bench.harness import tools


def main() -> int:
    """Returns 0: a row that can't be had is told, here as in every table, and stops nothing."""
    try:
        print(f"{'load generator':24} {tools.bombardier().name}", flush=True)
    except tools.Unavailable as error:
        print(f"{'load generator':24} not available: {tools.without_paths(str(error))}")
    for row in rows.ROWS:
        try:
            row.prepare()
            told = row.version()
        except tools.Unavailable as error:
            told = f"not available: {tools.without_paths(str(error))}"
        print(f"{row.name:24} {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
