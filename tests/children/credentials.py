"""Who a child may become, in a process that is nobody (if it can be): what comes of it.

credentials.py MODULE
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

module: Any = importlib.import_module(sys.argv[1])
run = module.run  # loads what nobody may be unable to read
run(["true"])
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)

ARGV = ["sh", "-c", "exec grep -E '^(Uid|Gid|Groups):' /proc/self/status"]
CASES: list[dict[str, Any]] = [
    {"user": os.getuid()},
    {"group": os.getgid()},
    {"user": 0},
    {"group": 0},
    {"extra_groups": [0]},
    {"extra_groups": []},
    {"user": 0, "cwd": "/usr"},
    {"user": os.getuid(), "cwd": "/no/such/directory"},
    {"user": 0, "process_group": 0} if sys.version_info >= (3, 11) else {},
]


def attempt(options: dict[str, Any]) -> object:
    try:
        return run(ARGV, stdout=module.PIPE, **options)
    except OSError as exc:
        return type(exc).__name__, exc.errno, exc.strerror, exc.filename


for options in CASES:
    print(options, attempt(options))
