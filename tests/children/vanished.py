"""In a network namespace: clients of a server, one for each way to answer, whose link goes down."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from serve.harness import Client, Server, children, poll

CONFIG = """
exec-timeout = "none"
tcp-keepalive = "1s"
tcp-user-timeout = "2s"

[[route]]
path = "/quiet"
command = "sleep 600"

[[route]]
path = "/begun"
command = ["sh", "-c", "echo one; exec sleep 600"]

[[route]]
path = "/cgi"
mode = "cgi"
shell = true
command = 'printf "Content-Type: text/plain\\nContent-Length: 9\\n\\none\\n"; exec sleep 600'
"""


def main(directory: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    config = directory / "serve.toml"
    config.write_text(CONFIG)
    server = Server(directory, ("--config", str(config)), ())
    asks = [(path, version) for path in ("/quiet", "/begun", "/cgi") for version in ("1.0", "1.1")]
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        for path, version in asks:
            client: Client = stack.enter_context(server.connect())
            client.get(path, version=version)
            if path != "/quiet":
                client.read_until(b"one\n")
        poll(lambda: len(children(server.pid)) == len(asks), "the processes")
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        poll(lambda: not children(server.pid), "the processes' end")
        poll(lambda: sum(" 499 " in line for line in server.log()) == len(asks), "the log")
    print("all are gone")


main(Path(sys.argv[1]))
