"""What was imported: when one of these files changes, so may what the template holds."""

from __future__ import annotations

import os
import sys


def files() -> list[bytes]:
    """All of them: also those of installed packages, which somebody may edit where they are."""
    named = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [os.fsencode(os.path.abspath(file)) for file in named if file]
