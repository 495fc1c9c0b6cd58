"""The audit events of a few processes, and that a hook can forbid one.

audit.py MODULE
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

module: Any = importlib.import_module(sys.argv[1])
forbid = False


def hook(event: str, args: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        print(event, args)
        if forbid:
            raise PermissionError("no processes here")


sys.addaudithook(hook)
module.run(["echo", "x"], capture_output=True)
module.run("exit 3", shell=True, cwd="/", env={"A": "x"})
module.run(["name", "x"], executable="echo", stdout=module.DEVNULL)
module.Popen(("true",)).wait()
forbid = True
for way in (module.run, module.Popen):
    with contextlib.suppress(PermissionError):
        way(["true"], stdout=module.PIPE)
        print("it was not forbidden")
