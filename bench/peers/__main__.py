"""``python -m bench.peers``: builds what every row needs, and says what was found or is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import handlers, rows, web
from bench.harness import pace, tools


def tell(name: str, prepare: Callable[[], object], version: Callable[[], str]) -> None:
    try:
        prepare()
        told = version()
    except tools.Unavailable as error:
        told = f"not available: {tools.without_paths(str(error))}"
    print(f"{name:26} {told}", flush=True)


def main() -> int:
    """Returns 0: a row that can't be had is told, here as in every table, and stops nothing."""
    tell("load generator", tools.bombardier, lambda: f"bombardier {tools.BOMBARDIER}")
    tell("load at a fixed rate", pace.program, lambda: "bench/pace.c")
    tell("queue", tools.nats_server, lambda: f"nats-server {tools.NATS_SERVER}")
    slow = [handler.row for handler in handlers.HANDLERS.values()]
    slow += [page.row for page in web.WEB.values()]
    for row in (*rows.ROWS, *slow, *rows.PROGRAM_ROWS.values(), *handlers.GAPS.values()):
        tell(row.name, row.prepare, row.version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
