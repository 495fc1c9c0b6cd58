from collections.abc import Sequence
from typing import Any

from fastspawn._core.child import Child
from fastspawn._core.plan import Plan

class Talk:
    @property
    def returncode(self) -> int: ...
    @property
    def stdout(self) -> bytes | None: ...
    @property
    def stderr(self) -> bytes | None: ...
    def __init__(
        self,
        plan: Plan,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        input: bytes | bytearray | memoryview | None = None,
    ) -> None: ...
    def communicate(self, timeout: float | None = None) -> bool: ...
    def close(self) -> None: ...
    def detach(self) -> Child: ...

def begin(
    args: Any, input: Any, options: dict[str, Any], prefix: Sequence[str] | None = None
) -> Talk | None: ...
