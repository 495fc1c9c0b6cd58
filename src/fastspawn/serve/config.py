"""What one server is asked to do: plain values, checked by ``cli.py``, read by all the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .paths import ANY_PATH

LoopName = Literal["uvloop", "asyncio"]
ModeName = Literal["raw", "cgi", "ws"]
StrategyName = Literal["direct", "snapshot", "warm", "pool", "auto", "subprocess"]
SnapshotAt = Literal["auto", "main", "effect", "checkpoint"]
LogFormat = Literal["common", "combined", "json"]
StderrName = Literal["inherit", "discard", "merge"]
CgiExit = Literal["lenient", "strict"]


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One route. Durations are seconds, sizes are bytes; ``None`` means "no limit" wherever it is
    allowed.

    The defaults here are the command line's defaults.
    """

    path: str = ANY_PATH
    """A template: see ``paths.py``."""
    methods: tuple[str, ...] | None = None
    """None: any."""

    command: tuple[str, ...] = ("echo", "hi")
    """With ``shell`` a single word, for ``sh -c``."""
    shell: bool = False
    cwd: str | None = None
    clear_env: bool = False
    pass_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()

    mode: ModeName = "raw"
    strategy: StrategyName = "direct"
    snapshot_at: SnapshotAt = "auto"
    pool_size: int | None = None
    """Spares, or workers; None: as the strategy has it."""
    pool_max: int | None = None
    pool_age: float = 300.0
    worker: tuple[str, ...] | None = None
    """None: the built-in one."""
    stderr: StderrName = "inherit"
    content_type: str = "text/plain; charset=utf-8"

    # Mode cgi.
    cgi_dir: str | None = None
    """The scripts below it are the commands."""
    cgi_link_dir: tuple[str, ...] = ()
    """Where links in it may lead."""
    document_root: str | None = None
    pass_authorization: bool = False
    stream_chunked: bool = False
    buffer_body: int | None = 64 * 1024 * 1024
    cgi_exit: CgiExit = "lenient"
    """What another exit status than 0 makes of a complete answer: nothing, or an error."""

    # Mode ws.
    ws_frames: Literal["lines", "bytes"] = "lines"
    ws_origin: tuple[str, ...] = ()
    ws_subprotocol: tuple[str, ...] = ()
    ws_max_message: int | None = 1024 * 1024
    ws_ping: float | None = 30.0

    # Enough for a few hundred sleepers, few enough that processes do not only fight for the
    # cores; the rest waits its turn, so a burst of clients is served late rather than refused.
    max_inflight: int = 256
    queue: int = 4096
    queue_timeout: float | None = 30.0

    exec_timeout: float | None = 60.0
    kill_grace: float = 2.0
    drain_timeout: float = 0.05
    max_output: int | None = None
    max_body: int | None = None

    rlimit: tuple[tuple[str, int, int], ...] = ()
    """Name, soft, hard. Of two with the same name the later one counts."""
    cgroup: str | None = None
    no_new_privs: bool = False
    sandbox: tuple[str, ...] | None = None
    """What each command line begins with."""

    @property
    def title(self) -> str:
        """For people and for figures."""
        return f"{','.join(self.methods)} {self.path}" if self.methods else self.path


@dataclass(frozen=True, slots=True)
class Config:
    """The server and its routes."""

    routes: tuple[RouteConfig, ...] = (RouteConfig(),)
    config: str | None = None
    """The file that some of this comes from."""

    host: str = "127.0.0.1"
    port: int = 8001
    uds: str | None = None
    uds_mode: int | None = None
    """Permission bits; None: as the umask has it."""
    fd: int | None = None
    backlog: int = 2048
    ssl_certfile: str | None = None
    """None: no TLS."""
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: str | None = None
    """Clients must have a certificate of these."""
    ssl_ciphers: str | None = None
    workers: int = 1
    loop: LoopName = "asyncio"
    spawners: int | None = None
    max_inflight_total: int | None = None
    """Over all routes and workers; None: only what each route allows in each worker."""

    user: str | None = None
    group: str | None = None
    subreaper: bool = False

    keep_alive_timeout: float = 5.0
    header_timeout: float = 10.0
    body_timeout: float | None = 60.0
    send_timeout: float | None = 60.0
    tcp_keepalive: float | None = 30.0
    tcp_user_timeout: float | None = None
    """None: somewhat more than ``send_timeout``; infinite: none."""
    max_head: int = 65536
    graceful_timeout: float | None = 30.0
    drain_delay: float = 0.0
    """From the signal to the end of accepting."""
    health_path: str | None = None
    ready_path: str | None = None
    metrics_path: str | None = None
    access_log: bool = True
    log_format: LogFormat = "common"
    request_id: bool = False
    proxy_headers: bool = False
    forwarded_allow_ips: tuple[str, ...] = ("127.0.0.0/8", "::1", "unix")
    """Whose word on a request's origin counts: addresses, networks, ``unix`` or ``*``."""

    @property
    def kill_grace(self) -> float:
        """The longest of all routes."""
        return max(route.kill_grace for route in self.routes)
