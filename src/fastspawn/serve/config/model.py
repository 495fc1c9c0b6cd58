"""What one server is asked to do: plain values that ``settings.py`` has checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from fastspawn.serve.paths import ANY_PATH

LoopName = Literal["uvloop", "asyncio"]
ModeName = Literal["raw", "cgi", "ws", "jsonrpc", "streaming", "serializing"]
"""The last two are of-watchdog's (see ``openfaas.py``), and come with its variables only."""
StrategyName = Literal["direct", "snapshot", "warm", "pool", "auto", "subprocess", "reset"]
SnapshotAt = Literal["auto", "main", "effect", "checkpoint", "imports"]
LogFormat = Literal["common", "combined", "json"]
StderrName = Literal["inherit", "discard", "merge", "log", "pipe"]
"""``pipe``: to the sink; no server asks for it."""
CgiExit = Literal["lenient", "strict"]
ErrorBody = Literal["message", "output"]
Place = str | tuple[str, int]
"""Where to listen: the path of a Unix socket, or host and port."""


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
    wsgi: str | None = None
    """The application that ``command`` runs: MODULE:APP."""
    asgi: str | None = None
    """Likewise."""
    request_env: bool = False
    """In mode ``raw``: the request is in the environment, as in mode ``cgi``."""
    own_env: bool = False
    """Each process gets variables that the others do not; no server asks for it."""

    mode: ModeName = "raw"
    strategy: StrategyName = "direct"
    snapshot_at: SnapshotAt = "auto"
    allow_reset: bool = False
    """Strategy auto may be reset."""
    pool_size: int | None = None
    """Spares, or workers; None: as the strategy has it."""
    pool_max: int | None = None
    pool_age: float = 300.0
    worker: tuple[str, ...] | None = None
    """None: the built-in one."""
    stderr: StderrName = "inherit"
    content_type: str = "text/plain; charset=utf-8"
    header: tuple[tuple[str, str], ...] = ()
    cors: tuple[str, ...] = ()
    """Sites whose pages may read the answers; ``*``: any."""
    cors_credentials: bool = False
    cors_max_age: float = 600.0

    # Mode raw.
    status: tuple[tuple[int, int], ...] = ()
    """Exit statuses, and what they are in HTTP."""
    error_body: ErrorBody = "message"
    """What is answered for a process that exited with another status than 0."""
    hold: float | None = None
    """Seconds for which the beginning of an output waits for the exit; None: see ``holds``."""

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
    pty: bool = False
    """The command has a terminal."""
    ws_frames: Literal["lines", "bytes", "text"] = "lines"
    ws_origin: tuple[str, ...] = ()
    ws_subprotocol: tuple[str, ...] = ()
    ws_max_message: int | None = 1024 * 1024
    ws_ping: float | None = 30.0

    # Mode jsonrpc.
    max_message: int | None = 4 * 1024 * 1024
    session_timeout: float | None = 1800.0
    session_buffer: int = 256 * 1024

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
    def application(self) -> tuple[str, str] | None:
        """Its kind and MODULE:APP."""
        if self.wsgi is not None:
            return "wsgi", self.wsgi
        return None if self.asgi is None else ("asgi", self.asgi)

    @property
    def holds(self) -> float | None:
        """``hold``, with its default: infinite where the answer's status depends on the exit's;
        None: as the strategy has it."""
        if self.mode != "raw":
            return None
        if self.hold is None and (self.status or self.error_body != "message"):
            return math.inf
        return self.hold

    @property
    def body_limit(self) -> int | None:
        """Bytes of a request's body: of mode jsonrpc it is a message."""
        limits = [self.max_body, self.max_message if self.mode == "jsonrpc" else None]
        return min((each for each in limits if each is not None), default=None)

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
    openfaas: bool = False
    """Some of it comes from of-watchdog's variables, and probes are answered as it does."""
    lock_file: str | None = None
    """With ``openfaas``: to be there while the server is healthy."""
    function_ready_path: str | None = None
    """Likewise: what the function is asked for to find out whether it is ready."""

    host: tuple[str, ...] = ("127.0.0.1",)
    """At ``port``; empty text: each of this machine's addresses."""
    port: int = 8001
    uds: str | None = None
    bind: tuple[Place, ...] = ()
    """Instead of these."""
    uds_mode: int | None = None
    """Permission bits; None: as the umask has it."""
    uds_owner: str | None = None
    """None: ``user``."""
    uds_group: str | None = None
    fd: int | None = None
    backlog: int = 2048
    ssl_certfile: str | None = None
    """None: no TLS."""
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_ca_certs: str | None = None
    """Clients' certificates are of these."""
    ssl_cert_reqs: Literal["optional", "required"] = "required"
    """Whether clients must have one, with ``ssl_ca_certs``."""
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
    agent_check: tuple[str, int] | None = None
    """Host and port."""
    live_path: str | None = None
    access_log: bool = True
    log_format: LogFormat = "common"
    request_id: bool = False
    proxy_headers: bool = False
    forwarded_allow_ips: tuple[str, ...] = ("127.0.0.0/8", "::1", "unix")
    """Whose word on a request's origin counts: addresses, networks, ``unix`` or ``*``."""
    remote_user_header: str | None = None
    """The field by which they tell who the client is, in lower case."""
    auth_type_header: str | None = None
    """Likewise, how it has proved that."""

    @property
    def places(self) -> tuple[str | tuple[tuple[str, ...], int], ...]:
        """Where to listen, unless it is ``fd``: paths of Unix sockets, and hosts that have a port
        in common."""
        if self.bind:
            return tuple(
                each if isinstance(each, str) else ((each[0],), each[1]) for each in self.bind
            )
        files = () if self.uds is None else (self.uds,)
        return (*(((self.host, self.port),) if self.host else ()), *files)

    @property
    def counts(self) -> bool:
        """Somebody may ask for figures."""
        return self.metrics_path is not None or self.live_path is not None

    @property
    def logs_errors(self) -> bool:
        """What some commands write to standard error is in the log."""
        return any(route.stderr == "log" for route in self.routes)

    @property
    def kill_grace(self) -> float:
        """The longest of all routes."""
        return max(route.kill_grace for route in self.routes)
