"""The one list of options: each is a flag, an environment variable and a key of the file.

``max-inflight`` is ``--max-inflight``, ``FASTSPAWN_MAX_INFLIGHT`` and ``max-inflight = 8``, and
sets ``max_inflight`` of ``model.Config``; an option of a route sets it in every
``RouteConfig`` that has none of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from . import values
from .units import duration, size
from .values import choice, endless, limit, number, positive

PREFIX: Final = "FASTSPAWN_"
"""Of the environment variables."""

Kind = Literal["text", "number", "duration", "size", "flag", "list"]
"""What TOML value it takes: a duration is a number of seconds or text, a list is an array of
text. As a flag, a list is repeated; as an environment variable it has an element a line."""


@dataclass(frozen=True)
class Need:
    """What an option is good for: ``options`` one of which must be set, to one of ``values`` if
    there are any; or ``other`` instead."""

    options: tuple[str, ...]
    values: tuple[str, ...] = ()
    other: Need | None = None

    def __str__(self) -> str:
        """For people."""
        text = " or ".join(f"--{name}" for name in self.options)
        if self.values:
            text = f"--{self.options[0]} {' or '.join(self.values)}"
        return text if self.other is None else f"{text} or {self.other}"


@dataclass(frozen=True)
class Option:
    """``convert``: from text (of a list: from an element's), raising ValueError. ``need``: without
    it, nothing would come of the option."""

    name: str
    group: str
    help: str
    convert: Callable[[str], Any]
    kind: Kind = "text"
    metavar: str | None = None
    of_route: bool = False
    need: Need | None = None

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.field.upper()


GROUPS: Final = (
    "configuration",
    "where to listen",
    "TLS",
    "processes",
    "routes",
    "commands",
    "answers",
    "CGI",
    "WebSockets",
    "sessions",
    "limits",
    "rights",
    "connections",
    "operation",
)


def _make() -> list[Option]:
    made: list[Option] = []

    def add(
        name: str,
        text: str,
        convert: Callable[[str], Any],
        kind: Kind = "text",
        metavar: str | None = None,
        need: Need | None = None,
    ) -> None:
        of_route = group in (
            *("commands", "answers", "CGI", "WebSockets", "sessions", "limits", "rights"),
        )
        made.append(Option(name, group, text, convert, kind, metavar, of_route, need))

    def strategy(*names: str) -> Need:
        return Need(("strategy",), names)

    def mode(*names: str) -> Need:
        return Need(("mode",), names)

    group = "configuration"
    add("config", "a TOML file with any of these options, and [[route]] tables; read again at "
        "SIGHUP", values.path, "text", "FILE")  # fmt: skip
    add("openfaas", "run a function of OpenFaaS: read of-watchdog's variables (fprocess, mode, "
        "exec_timeout ...), and answer as it does (default: off)", values.boolean,
        "flag")  # fmt: skip

    group = "where to listen"
    add("host", "address or name; '' or '*': each of this machine's addresses, IPv4 and IPv6; may "
        "be repeated (default: 127.0.0.1)", values.host, "list", "HOST")  # fmt: skip
    add("port", "0: any that is free (default: what the variable PORT says, or 8001)",
        number(0, 65535), "number", "PORT")  # fmt: skip
    add("uds", "a Unix socket, instead of a port or with --host or --port besides", values.path,
        "text", "PATH")  # fmt: skip
    add("bind", "instead of these: HOST:PORT, [ADDRESS]:PORT, :PORT or unix:PATH; may be repeated",
        values.place, "list", "WHERE")  # fmt: skip
    file = Need(("uds", "bind"))
    add("uds-mode", "permissions of a Unix socket, such as 660 (default: by the umask)",
        values.mode, "text", "MODE", need=file)  # fmt: skip
    add("uds-owner", "whose it is: a name or a number (default: --user)", values.account, "text",
        "USER", need=file)  # fmt: skip
    add("uds-group", "likewise (default: --group, or that of --user)", values.account, "text",
        "GROUP", need=file)  # fmt: skip
    add("fd", "an inherited socket instead", number(0, 1 << 20), "number", "FD")
    add("backlog", "connections not yet accepted (default: 2048)", number(1), "number", "N")

    group = "TLS"
    tls = Need(("ssl-certfile",))
    add("ssl-certfile", "serve HTTPS with this certificate (chain), read again at SIGHUP",
        values.path, "text", "FILE")  # fmt: skip
    add("ssl-keyfile", "its key (default: in the same file)", values.path, "text", "FILE",
        need=tls)  # fmt: skip
    add("ssl-keyfile-password", "of the key; better in FASTSPAWN_SSL_KEYFILE_PASSWORD", str,
        "text", "TEXT", need=tls)  # fmt: skip
    add("ssl-ca-certs", "clients must have a certificate that one of these has signed",
        values.path, "text", "FILE", need=tls)  # fmt: skip
    add("ssl-cert-reqs", "required; optional: clients may have none, but no other one (default: "
        "required)", choice("optional", "required"), "text", "WHICH",
        need=Need(("ssl-ca-certs",)))  # fmt: skip
    add("ssl-ciphers", "in OpenSSL's notation, for TLS 1.2 (default: Python's)", str, "text",
        "LIST", need=tls)  # fmt: skip

    group = "processes"
    add("workers", "server processes on the same port (default: 1)", number(1, 1024), "number", "N")
    add("loop", "event loop: auto, uvloop or asyncio (default: auto)",
        choice("auto", "uvloop", "asyncio"), "text", "NAME")  # fmt: skip
    add("spawners", "the engine's threads (default: by the number of cores)", number(1, 1024),
        "number", "N")  # fmt: skip
    add("max-inflight-total", "commands that run at once, of all routes and workers together "
        "(default: none)", limit(number(1)), "number", "N")  # fmt: skip

    add("user", "whom the server becomes, once it has bound its sockets: a name or a number",
        values.account, "text", "USER")  # fmt: skip
    add("group", "likewise (default: the user's)", values.account, "text", "GROUP")
    add("subreaper", "adopt and reap processes that a command leaves behind, as process 1 has to "
        "in any case (default: off)", values.boolean, "flag")  # fmt: skip

    group = "routes"
    add("route", "a command of its own for a path such as /user/{name} or /files/{path...}; "
        "may be repeated", values.route, "list", "'[METHOD,... ]/PATH=CMD'")  # fmt: skip

    group = "commands"
    add("wsgi", "instead of CMD: a Python web application; it is imported once, and each request "
        "runs in a fork of that (APP: application)", values.application, "text",
        "MODULE[:APP]")  # fmt: skip
    add("asgi", "likewise, of ASGI (APP: app)", values.application, "text",
        "MODULE[:APP]")  # fmt: skip
    add("mode", "raw: standard output is the body; cgi: a header and the body, as in RFC 3875; "
        "ws: a WebSocket is its standard input and output; jsonrpc: so is a session of MCP, a "
        "message a line (default: raw)", choice("raw", "cgi", "ws", "jsonrpc"), "text",
        "MODE")  # fmt: skip
    add("strategy", "direct: exec on the C engine; snapshot: fork of a process of the command "
        "that stopped before main; reset: the same, and a fork serves one request after the other, "
        "put back to its start each time, where it can be; warm: a process that was started before "
        "the request and waits for its input; pool: a child of a worker, which resets by killing "
        "it; auto: snapshot (with --allow-reset: reset) if CMD allows it, else direct; subprocess: "
        "asyncio's own (default: direct)",
        choice("direct", "snapshot", "warm", "pool", "auto", "subprocess", "reset"), "text",
        "NAME")  # fmt: skip
    add("snapshot-at", "where forks begin: main; effect: just before the first thing that the "
        "command does to the world, for commands that are the same for every request; checkpoint: "
        "where the command asks for it; imports: where the imports of a Python script have run, "
        "which need not know; auto: at a checkpoint if it is a Python program, else effect where "
        "that can be, else main (default: auto)",
        choice("auto", "main", "effect", "checkpoint", "imports"),
        "text", "PLACE", need=strategy("snapshot", "auto", "reset"))  # fmt: skip
    add("allow-reset", "strategy auto may choose reset, by which one process serves many requests "
        "that have to trust one another (default: off)", values.boolean, "flag",
        need=strategy("auto"))  # fmt: skip
    add("pool-size", "processes that strategy warm keeps ready at least (default: 1); workers of "
        "strategy pool, and so its requests at once (default: by the number of cores)",
        number(0, 1024), "number", "N", need=strategy("warm", "pool"))  # fmt: skip
    add("pool-max", "processes that strategy warm keeps at most, when more were needed (default: "
        "8 or --pool-size)", number(1, 1024), "number", "N", need=strategy("warm"))  # fmt: skip
    add("pool-age", "how old they get before they are replaced unused (default: 5m)",
        positive(duration), "duration", "TIME", need=strategy("warm"))  # fmt: skip
    add("worker", "for strategy pool, the command line of another worker than the built-in one",
        values.words, "text", "'CMD ARG...'", need=strategy("pool"))  # fmt: skip
    add("shell", "each command is one word, run by `sh -c` (default: off)", values.boolean,
        "flag")  # fmt: skip
    add("cwd", "working directory", values.directory, "text", "DIR")
    add("set-env", "a variable; VALUE may have {placeholder}s; may be repeated",
        values.assignment, "list", "NAME=VALUE")  # fmt: skip
    add("pass-env", "of the server's environment pass on only PATH, LANG, LC_*, TZ and this "
        "(PREFIX*: all that begin so); may be repeated", values.variable_pattern, "list",
        "NAME")  # fmt: skip
    add("clear-env", "likewise, without passing on more (default: off)", values.boolean, "flag")
    add("request-env", "tell a command of mode raw of its request, as CGI does: REQUEST_METHOD, "
        "QUERY_STRING, CONTENT_TYPE, HTTP_* and so on; it has as little of the server's "
        "environment then (default: off)", values.boolean, "flag", need=mode("raw"))  # fmt: skip
    add("stderr", "inherit: the server's; discard; merge: into the answer; log: each line to the "
        "server's with time, route, process id and the request's id, as text or, with --log-format "
        "json, as an object (default: inherit)", choice("inherit", "discard", "merge", "log"),
        "text", "WHERE")  # fmt: skip
    add("content-type", "of the answer (default: text/plain; charset=utf-8)", values.media_type,
        "text", "TYPE")  # fmt: skip

    group = "answers"
    raw = mode("raw")
    cors = Need(("cors",))
    add("header", "a field of each answer, errors too (a script's own goes before it); may be "
        "repeated", values.field, "list", "'NAME: VALUE'")  # fmt: skip
    add("cors", "a site whose pages may read the answers; '*': any; preflights are answered "
        "without a process; may be repeated", values.origin, "list", "SCHEME://HOST",
        need=mode("raw", "cgi", "jsonrpc"))  # fmt: skip
    add("cors-credentials", "its pages may send cookies and the like (default: off)",
        values.boolean, "flag", need=cors)  # fmt: skip
    add("cors-max-age", "how long a browser need not ask again (default: 10m)", duration,
        "duration", "TIME", need=cors)  # fmt: skip
    add("status", "what exit statuses are in HTTP, such as 1=404,2=400: with one from 200 to 299 "
        "the output is the answer (default: 0=200, and 500 for any other)", values.statuses,
        "text", "EXIT=HTTP,...", need=raw)  # fmt: skip
    add("error-body", "what is answered for another exit status: message: a line of the server's; "
        "output: what the command wrote (default: message)", choice("message", "output"), "text",
        "WHAT", need=raw)  # fmt: skip
    add("hold", "how long the beginning of an output, up to 64k, waits for the exit, which tells "
        "its status and length; exit: until then (default: exit with --status or --error-body "
        "output, else 10ms)", values.hold, "duration", "TIME", need=raw)  # fmt: skip

    group = "CGI"
    add("cgi-dir", "instead of CMD: the scripts in DIR/cgi-bin and DIR/htbin (or in DIR itself, if "
        "it has neither) at /cgi-bin/ and /htbin/, as http.server --cgi had them; no other files "
        "are served", values.path, "text", "DIR")  # fmt: skip
    add("cgi-link-dir", "where links in --cgi-dir may lead, besides to programs that the link's "
        "owner has as well; may be repeated", values.directory, "list", "DIR",
        need=Need(("cgi-dir",)))  # fmt: skip
    add("document-root", "DOCUMENT_ROOT, and what PATH_TRANSLATED begins with (default: that of "
        "--cgi-dir)", values.path, "text", "DIR", need=mode("cgi", "ws"))  # fmt: skip
    add("pass-authorization", "let scripts see Authorization and Proxy-Authorization (default: "
        "off)", values.boolean, "flag",
        need=Need(("mode",), ("cgi", "ws"), Need(("request-env",))))  # fmt: skip
    add("buffer-body", "how much of a chunked request is kept until its end, which tells "
        "CONTENT_LENGTH; more get 413 (default: 64M)", limit(size), "size", "SIZE",
        need=mode("cgi"))  # fmt: skip
    add("stream-chunked", "hand on a chunked request as it comes, without CONTENT_LENGTH "
        "(default: off)", values.boolean, "flag", need=mode("cgi"))  # fmt: skip
    add("cgi-exit", "lenient: a complete answer is one whatever the script's exit status; strict: "
        "another than 0 makes it an error (default: lenient)", choice("lenient", "strict"), "text",
        "HOW", need=mode("cgi"))  # fmt: skip

    group = "WebSockets"
    add("pty", "the command has a terminal, as a shell needs; clients are xterm.js, and what "
        "speaks ttyd's subprotocol, tty (default: off)", values.boolean, "flag",
        need=mode("ws"))  # fmt: skip
    add("ws-frames", "lines: a message is a line of text; bytes: messages are pieces of one stream "
        "each way; text: likewise, and those to the client are text (default: lines; with --pty "
        "text)", choice("lines", "bytes", "text"), "text", "WHAT", need=mode("ws"))  # fmt: skip
    add("ws-origin", "a site whose pages may open one, besides this host's own; '*': any; may be "
        "repeated", values.origin, "list", "SCHEME://HOST", need=mode("ws"))  # fmt: skip
    add("ws-subprotocol", "what the command speaks, for clients that ask; may be repeated",
        values.token, "list", "NAME", need=mode("ws"))  # fmt: skip
    add("ws-max-message", "bytes of a client's message; more close it with 1009 (default: 1M)",
        limit(positive(size)), "size", "SIZE", need=mode("ws"))  # fmt: skip
    add("ws-ping", "a client that is silent so long is pinged, and cut off if it stays so "
        "(default: 30s)", limit(positive(duration)), "duration", "TIME",
        need=mode("ws"))  # fmt: skip

    group = "sessions"
    add("session-timeout", "a session that its client asks nothing of for so long, and does not "
        "listen to, ends (default: 30m)", limit(positive(duration)), "duration", "TIME",
        need=mode("jsonrpc"))  # fmt: skip
    add("session-buffer", "bytes of a session's events that are kept for a client that comes back "
        "(default: 256k)", size, "size", "SIZE", need=mode("jsonrpc"))  # fmt: skip
    add("max-message", "bytes of a message: more of a client's get 413, more of the process's end "
        "the session (default: 4M)", limit(positive(size)), "size", "SIZE",
        need=mode("jsonrpc"))  # fmt: skip

    group = "limits"
    add("max-inflight", "processes at once (default: 256)", number(1), "number", "N")
    add("queue", "requests that may wait for one; more get 503 (default: 4096)", number(0),
        "number", "N")  # fmt: skip
    add("queue-timeout", "how long they may wait, then 503 (default: 30s)",
        limit(positive(duration)), "duration", "TIME")  # fmt: skip
    add("exec-timeout", "how long a process may run, then 504 (default: 60s; of a "
        "WebSocket or a session: none)",
        limit(positive(duration)), "duration", "TIME")  # fmt: skip
    add("kill-grace", "from TERM to KILL (default: 2s)", duration, "duration", "TIME")
    add("drain-timeout", "how long to wait, once the process has exited, for others that keep "
        "its output open (default: 50ms)", duration, "duration", "TIME")  # fmt: skip
    add("max-output", "bytes of output (default: none)", limit(positive(size)), "size", "SIZE")
    add("max-body", "bytes of a request's body; more get 413 (default: none)", limit(size),
        "size", "SIZE")  # fmt: skip

    group = "rights"
    add("rlimit", "a limit of each process as in setrlimit(2), such as nofile=64, fsize=1M or "
        "cpu=10:unlimited; may be repeated", values.rlimit, "list",
        "NAME=[SOFT:]HARD")  # fmt: skip
    add("cgroup", "put each process into this directory of cgroup version 2", values.directory,
        "text", "DIR")  # fmt: skip
    add("no-new-privs", "no program gives a process more rights, as set-user-ID ones would "
        "(default: off)", values.boolean, "flag")  # fmt: skip
    add("sandbox", "what each command line begins with, such as 'bwrap ... --' or 'setpriv ... "
        "--'; split as a shell does", limit(values.words), "text", "'CMD ARG...'")  # fmt: skip

    group = "connections"
    add("keep-alive-timeout", "how long to wait for another request (default: 5s)",
        positive(duration), "duration", "TIME")  # fmt: skip
    add("header-timeout", "how long a request's head may take, then 408 (default: 10s)",
        positive(duration), "duration", "TIME")  # fmt: skip
    add("body-timeout", "how long the next bit of a request's body may take, then 408 (default: "
        "60s)", limit(positive(duration)), "duration", "TIME")  # fmt: skip
    add("send-timeout", "how long a client may take nothing of its answer, before it is cut off "
        "(default: 60s)", limit(positive(duration)), "duration", "TIME")  # fmt: skip
    add("tcp-keepalive", "how long a client may be silent before its system is asked whether it is "
        "still there (default: 30s)", limit(positive(duration)), "duration", "TIME")  # fmt: skip
    add("tcp-user-timeout", "how long a client's system may acknowledge nothing, before the client "
        "is given up (default: 10s more than --send-timeout)", endless(positive(duration)),
        "duration", "TIME")  # fmt: skip
    add("max-head", "bytes of a request line and header fields, at least 4k and in steps of that; "
        "more get 431 (default: 64k)", values.head_size, "size", "SIZE")  # fmt: skip
    add("graceful-timeout", "how long, after a signal, requests may take to finish (default: "
        "30s)", limit(duration), "duration", "TIME")  # fmt: skip
    add("drain-delay", "how long, after a signal, to go on while --ready-path says 503 and each "
        "answer ends its connection (default: 0)", duration, "duration", "TIME")  # fmt: skip

    group = "operation"
    add("health-path", "a path that is answered with 200 while the server lives", values.url_path,
        "text", "/PATH")  # fmt: skip
    add("ready-path", "a path that is answered with 200, and with 503 before the server stops",
        values.url_path, "text", "/PATH")  # fmt: skip
    add("metrics-path", "a path with figures for Prometheus (needs fastspawn[metrics])",
        values.url_path, "text", "/PATH")  # fmt: skip
    add("agent-check", "a port where HAProxy's agent-check is told how much to send, by what is "
        "taken, and to drain before the server stops (HOST: 127.0.0.1)", values.address, "text",
        "[HOST:]PORT")  # fmt: skip
    add("live-path", "a path with a page for browsers that shows what the server does now",
        values.url_path, "text", "/PATH")  # fmt: skip

    add("access-log", "a line per request on standard output (default: on)", values.boolean,
        "flag")  # fmt: skip
    add("log-format", "common; combined: with referer, agent and what the process used; json: an "
        "object a line, with all of it (default: common)", choice("common", "combined", "json"),
        "text", "NAME")  # fmt: skip
    add("request-id", "an id for each request: in X-Request-Id of the answer, in the command's "
        "environment (HTTP_X_REQUEST_ID) and in the log; that of the request if its sender is "
        "trusted (default: off)", values.boolean, "flag")  # fmt: skip
    add("proxy-headers", "believe the X-Forwarded-For and X-Forwarded-Proto of who is trusted: "
        "for the log and for scripts (default: off)", values.boolean, "flag")  # fmt: skip
    add("forwarded-allow-ips", "who is trusted with these: addresses and networks with commas, "
        "unix (a Unix socket's clients) or * (default: 127.0.0.0/8,::1,unix)", values.sources,
        "text", "ADDRESSES", need=Need(("proxy-headers", "request-id")))  # fmt: skip
    add("remote-user-header", "the field in which who is trusted names the user whom it has let "
        "in, such as X-Remote-User: REMOTE_USER of scripts; from others it is dropped",
        values.field_name, "text", "NAME", need=Need(("proxy-headers",)))  # fmt: skip
    add("auth-type-header", "likewise, for AUTH_TYPE (default: the scheme in Authorization)",
        values.field_name, "text", "NAME", need=Need(("remote-user-header",)))  # fmt: skip
    return made


OPTIONS: Final = {option.name: option for option in _make()}

COMMON: Final = (
    *("config", "host", "port", "workers", "route", "mode", "strategy", "cgi-dir", "wsgi", "asgi"),
    *("set-env", "max-inflight", "exec-timeout", "max-body", "metrics-path"),
)
"""Those that most people need, which ``--help`` shows; ``--help-all`` shows the others, too."""
