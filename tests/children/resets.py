"""``resets.py N main|effect|checkpoint COMMAND...``: N runs, all alike, each a reset of the last.

With cat as the command each run has a nonce in and out.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from residents import CHECKED, EFFECT, MAIN, Template

CHECK_EACH = 1000
"""One resident in turn compares everything, and as many runs as this are made by each."""

n, at, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
nonces = command[0].endswith("cat")
wrong = runs = residents = 0
first: tuple[int, bytes, bytes] | None = None
with Template(
    command, effect=EFFECT if at == "effect" else MAIN, checkpoint=at == "checkpoint"
) as template:
    resident = template.resident(CHECKED if n <= CHECK_EACH else 0)
    residents = 1
    for i in range(n):
        nonce = f"{i * 2654435761:024x}\n".encode()
        outcome = resident.run(nonce)
        runs += 1
        got = (outcome.code, outcome.stdout, outcome.stderr)
        expected = (0, nonce, b"") if nonces else first or got
        first = first or got
        if got != expected or (outcome.reply and outcome.reply.differs):
            wrong += 1
            print(i, got, expected, outcome.reply, file=sys.stderr)
        if outcome.died or outcome.left is not None:
            resident.close()
            resident = template.resident()
            residents += 1
    resident.close()
print(f"{runs} runs of {residents} resident{'s' * (residents > 1)}, {wrong} wrong")
sys.exit(wrong > 0)
