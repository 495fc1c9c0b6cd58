from __future__ import annotations

from serve.conftest import start

__all__ = ["start"]
