"""Ours as an ASGI application: ``fastspawn.asgi.ProcessApp`` under uvicorn or granian.

One process of either, as the rows `fastspawn-direct` and `uvicorn-asgi` have one; access logs off.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench.peers.python.http_side import option_parser

if TYPE_CHECKING:
    from fastspawn.asgi import ProcessApp


def application() -> ProcessApp:
    """Made in the server's own process, which granian starts with this program's command line."""
    from fastspawn.asgi import ProcessApp

    return ProcessApp(sys.argv[sys.argv.index("--") + 1 :])


def uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(application(), host="127.0.0.1", port=port, access_log=False, log_level="warning")


def granian(port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces

    Granian(
        f"{__spec__.name}:application",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        log_enabled=False,
    ).serve()


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--server", choices=("uvicorn", "granian"), required=True)
    options = parser.parse_args()
    {"uvicorn": uvicorn, "granian": granian}[options.server](options.port)


if __name__ == "__main__":
    main()
