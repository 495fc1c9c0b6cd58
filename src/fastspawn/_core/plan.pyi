import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from typing_extensions import Self

_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

__pyx_capi__: dict[str, object]  # what other parts use of it

class Strings:
    def __new__(cls, items: list[bytes]) -> Self: ...

class Plan:
    @property
    def executable(self) -> Any: ...
    @property
    def cwd(self) -> Any: ...
    @property
    def cgroup(self) -> Any: ...
    @property
    def pipes(self) -> tuple[bool, bool]: ...
    def __init__(
        self,
        argv: Sequence[_Path],
        *,
        executable: _Path | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        cwd: _Path | None = None,
        pass_fds: Iterable[int] = (),
        close_fds: bool = True,
        restore_signals: bool = True,
        start_new_session: bool = False,
        process_group: int | None = None,
        umask: int = -1,
        rlimits: Iterable[tuple[int, tuple[int, int]]] = (),
        user: int | None = None,
        group: int | None = None,
        extra_groups: Sequence[int] | None = None,
        stdout: int | None = ...,
        stderr: int | None = ...,
        timeout: float | None = None,
        kill_grace: float = 0,
        drain: float = 0,
        max_output: int | None = None,
        cgroup: _Path | None = None,
        no_new_privs: bool = False,
        death_signal: int = 0,
    ) -> None: ...
    def resolve(self) -> str: ...
    def environment(self) -> dict[bytes, bytes]: ...
