"""Runs the Python on standard input, and tells how it went.  It is within the sandbox, too."""

import json
import subprocess
import sys

MOST = 64_000

done = subprocess.run(
    [sys.executable, "-I", "-c", sys.stdin.read()],
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    errors="replace",
)
result = {"status": done.returncode, "stdout": done.stdout[:MOST], "stderr": done.stderr[-MOST:]}
print(json.dumps(result))
