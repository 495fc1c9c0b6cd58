"""The applications of ``plain.py`` and ``gallery.py``, between which and their server asgion looks:
its rules are not of our making. It says on standard error what is broken, and by whom."""

from __future__ import annotations

import sys
from typing import Any

from asgion import AsgionConfig, Severity, Violation, inspect

from asgi.gallery import shop
from asgi.plain import application


def tell(found: Violation) -> None:
    print(f"VIOLATION {found.rule_id} {found.severity} {found.message}", file=sys.stderr)


def inspected(application: Any) -> Any:
    return inspect(
        application, config=AsgionConfig(min_severity=Severity.WARNING), on_violation=tell
    )


plain = inspected(application)
gallery = inspected(shop)
