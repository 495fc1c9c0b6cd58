"""Peer: ``asyncio.create_subprocess_exec`` and ``communicate()``, with nothing around them.

The rows `stdlib-asyncio` and `uvloop-subprocess` run in fastspawn's own server, with its deadlines,
limits and streaming. This peer shows what the same call does without any of that.
"""

from __future__ import annotations

import asyncio

import uvloop

from bench.peers.python.http_side import Run, option_parser, serve


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    argv: list[str] = options.argv

    async def run_command() -> bytes:
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"exit status {process.returncode}")
        return output

    def start(loop: asyncio.AbstractEventLoop) -> Run:
        return lambda: loop.create_task(run_command())

    loop = uvloop.new_event_loop() if options.loop == "uvloop" else asyncio.new_event_loop()
    serve(options.port, start, loop)


if __name__ == "__main__":
    main()
