"""Peer: ``subprocess.run`` in a ThreadPoolExecutor, what most Python servers do.

``--stderr inherit`` opens one pipe per child as every other row does; ``--stderr pipe`` is
``capture_output=True`` as it is usually written. The pool has the executor's own default size.
"""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor

from bench.peers.python.http_side import Run, option_parser, serve


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--stderr", choices=("inherit", "pipe"), default="inherit")
    options = parser.parse_args()
    argv: list[str] = options.argv
    stderr = subprocess.PIPE if options.stderr == "pipe" else None

    def run_command() -> bytes:
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=stderr, check=True).stdout

    with ThreadPoolExecutor(options.size) as executor:

        def start(loop: asyncio.AbstractEventLoop) -> Run:
            return lambda: loop.run_in_executor(executor, run_command)

        serve(options.port, start)


if __name__ == "__main__":
    main()
