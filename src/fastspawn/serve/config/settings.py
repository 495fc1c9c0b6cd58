"""From flags, environment variables and a file to one ``Config``.

A flag goes before a variable, and that before the file; what of-watchdog's variables and PORT say
comes last. An option of a route that is given for the whole server counts for each route that does
not say otherwise; the lists (``set-env``, ``pass-env``, ``rlimit``, ``cgi-link-dir``,
``ws-origin``, ``ws-subprotocol``, ``cors``, ``header``) add up; of header fields, a route's own go
before others of their name.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Final

from fastspawn._imports import launched
from fastspawn._resettable.pool import default_size
from fastspawn.serve import paths

from . import applications, openfaas, options, variables
from . import file as configfile
from .model import Config, RouteConfig
from .placeholders import Placeholders, why_not_alike

_PLACES: Final = ("fd", "bind", "uds", "host", "port")
"""Options that say where to listen. Each of the first two says all of it."""
_TCP: Final = frozenset({"host", "port"})
_OF_FILES: Final = ("uds_mode", "uds_owner", "uds_group")
"""Options of Unix sockets."""
_FIXED: Final = (
    *(*_PLACES, *_OF_FILES, "backlog"),
    *("workers", "loop", "spawners", "max_inflight_total", "metrics_path"),
    *("live_path", "agent_check", "request_id", "tcp_keepalive", "tcp_user_timeout"),
    *(option.field for option in options.OPTIONS.values() if option.group == "TLS"),
    *("user", "group", "subreaper", "openfaas", "lock_file"),
)
"""Fields that a reload can't change."""
_SUMS: Final = (
    *("set_env", "pass_env", "rlimit", "cgi_link_dir", "ws_origin", "ws_subprotocol"),
    *("header", "cors"),
)


_INSTEAD: Final = ("cgi_dir", "wsgi", "asgi")
"""What a route may have instead of a command."""
_OF_COMMAND: Final = ("mode", "shell", "snapshot_at")


class SettingsError(ValueError):
    """What is wrong, in one line."""


def title(route: RouteConfig) -> str:
    """For people."""
    return f"route {route.title}"


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """``flags``: by field, and perhaps ``command``, the words at the command line's end.

    Reads the file that they name, if they do. Raises SettingsError.
    """
    try:
        given = variables.read(environ)
        path = flags.get("config", given.get("config"))
        file = {} if path is None else configfile.read(path)
        wanted = [each["openfaas"] for each in (flags, given, file) if "openfaas" in each]
        merged = openfaas.read(environ) if wanted and wanted[0] else {}
    except ValueError as error:
        raise SettingsError(str(error)) from error
    for name, level in (("", file), (options.PREFIX, given), ("--", flags)):
        _one_place(level, name, merged)
        merged |= level
    merged["config"] = path
    if merged.get("openfaas") and not any(merged.get(name) for name in ("command", "route")):
        raise SettingsError("--openfaas needs the variable fprocess, or CMD")
    _platform_port(environ, merged)
    return _config(merged)


def reloaded(old: Config, new: Config) -> tuple[Config, str]:
    """``new`` as far as a running server can become it, and a note about what it can't."""
    fixed = {name: getattr(old, name) for name in _FIXED}
    differ = [name for name, value in fixed.items() if getattr(new, name) != value]
    note = f" ({', '.join(differ)}: not before a restart)".replace("_", "-") if differ else ""
    return replace(new, **fixed), note


def _one_place(level: Mapping[str, Any], prefix: str, merged: dict[str, Any]) -> None:
    """Refuse what can't be together of what says where to listen, and let a level's replace those
    below."""
    ways = [way for way in _PLACES if way in level]
    names = [prefix + (way.upper() if prefix == options.PREFIX else way) for way in ways]
    if len(ways) > 1 and ways[0] in ("fd", "bind"):
        raise SettingsError(f"{names[0]} and {names[1]} exclude each other")
    for way, name in zip(ways, names, strict=True):
        if level[way] == []:
            raise SettingsError(f"{name}: nowhere to listen ('*' is everywhere)")
    if level.get("fd") in (0, 1, 2):
        raise SettingsError(f"--fd {level['fd']}: 0, 1 and 2 are the standard streams")
    if ways:
        for way in _PLACES:
            if way not in ways and not (way in _TCP and _TCP.intersection(ways)):
                merged.pop(way, None)
        if "uds" not in ways and "bind" not in ways:
            for way in _OF_FILES:
                merged.pop(way, None)


def _settle_places(merged: dict[str, Any]) -> None:
    """Raises SettingsError."""
    for name in ("host", "bind"):
        if name in merged:
            merged[name] = tuple(merged[name])
    if "uds" in merged:
        if not _TCP & merged.keys():
            merged["host"] = ()
    elif not any(isinstance(each, str) for each in merged.get("bind", ())):
        for name in _OF_FILES:
            if name in merged:
                option = name.replace("_", "-")
                raise SettingsError(f"--{option} needs --uds or --bind unix:PATH")


def _platform_port(environ: Mapping[str, str], merged: dict[str, Any]) -> None:
    """PORT is how Cloud Run, Knative, Heroku and others tell what they start where to listen. It is
    not ours, so it counts only where nothing that is says anything."""
    text = environ.get("PORT", "")
    said = merged.keys() & {"fd", "bind", "port"} or ("uds" in merged and "host" not in merged)
    if text and not said:
        try:
            merged["port"] = options.OPTIONS["port"].convert(text)
        except ValueError as error:
            raise SettingsError(f"PORT: {error} (--port goes before it)") from error


def _config(merged: dict[str, Any]) -> Config:
    common = {
        option.field: merged.pop(option.field)
        for option in options.OPTIONS.values()
        if option.of_route and option.field in merged
    }
    given = merged.pop("route", [])
    # Not for each route: like CMD, it answers what they do not.
    rest: dict[str, Any] = {name: common.pop(name) for name in _INSTEAD if name in common}
    if "command" in merged:
        rest["command"] = merged.pop("command")
    if not given and rest and "command" not in rest:
        # They can be about nothing else.
        rest |= {name: common[name] for name in (*_OF_COMMAND, "strategy") if name in common}
    if rest or not given:
        given = [*given, rest]
    routes = tuple(make_route(common, each) for each in given)
    _add_up(routes)
    for option in options.OPTIONS.values():
        if option.of_route:
            _check_need(option, common, routes)
        else:
            _check_need(option, merged, [merged])
    if merged.get("subreaper") and any(route.strategy == "subprocess" for route in routes):
        raise SettingsError("--subreaper can't be with --strategy subprocess")
    if merged.get("workers", 1) > 1 and any(route.mode == "jsonrpc" for route in routes):
        raise SettingsError("--mode jsonrpc can't be with --workers: a session is in one process")
    _settle_places(merged)
    if merged.get("auth_type_header", "") == merged.get("remote_user_header"):
        raise SettingsError("--remote-user-header and --auth-type-header are the same")
    merged["loop"] = _loop(merged.get("loop", "auto"))
    _own_paths(merged)
    if merged.get("metrics_path") is not None and find_spec("prometheus_client") is None:
        raise SettingsError(
            "--metrics-path needs prometheus-client: pip install 'fastspawn[metrics]'"
        )
    return Config(routes=routes, **merged)


def make_route(common: Mapping[str, Any], own: Mapping[str, Any]) -> RouteConfig:
    """One route from its own fields, and what counts where it has none. Raises SettingsError."""
    fields = {**common, **own}
    where = fields.pop("where", None)
    ways = [name for name in ("command", *_INSTEAD) if fields.get(name) is not None]
    if len(ways) > 1:
        both = ("a command" if way == "command" else f"--{way}" for way in ways[:2])
        raise SettingsError(
            f"{where or ''}{' and '.join(both)} exclude each other".replace("_", "-")
        )
    if "cgi_dir" in fields:
        if own.get("mode", "cgi") != "cgi":
            raise SettingsError(f"{where or ''}--cgi-dir is mode cgi, not {own['mode']}")
        if own.get("shell"):
            raise SettingsError(f"{where or ''}--shell is for a command, not --cgi-dir")
        fields["mode"] = "cgi"
        if fields.get("strategy") in ("snapshot", "reset"):
            raise SettingsError(
                f"{where or ''}--strategy {fields['strategy']} is for one program, not --cgi-dir"
            )
    elif ways in (["wsgi"], ["asgi"]):
        try:
            fields = applications.fill(ways[0], fields, own)
        except ValueError as error:
            raise SettingsError(f"{where or ''}{error}") from error
    if fields.get("mode") in ("ws", "jsonrpc"):
        fields.setdefault("exec_timeout", None)
    if fields.get("pty"):
        fields.setdefault("ws_frames", "text")
    for name in _SUMS:
        fields[name] = (*common.get(name, ()), *own.get(name, ()))
    names = {name.lower() for name, _ in own.get("header", ())}
    fields["header"] = (
        *(each for each in common.get("header", ()) if each[0].lower() not in names),
        *own.get("header", ()),
    )
    try:
        if "command" in fields:
            fields["command"] = _command(fields["command"], fields.get("shell", False))
        route = RouteConfig(**fields)
    except ValueError as error:
        place = where or (f"route {own['path']}: " if "path" in own else "")
        raise SettingsError(f"{place}command: {error}") from error
    try:
        for option in options.OPTIONS.values():
            _check_need(option, own, [route])
        if route.pool_max is not None and (route.pool_size or 0) > route.pool_max:
            raise ValueError("--pool-size is more than --pool-max")
        _check_cors(route)
        if route.pty:
            _check_terminal(route)
        if route.strategy == "pool":
            route = _fit_pool(route)
        if route.strategy == "subprocess" and (route.rlimit or route.cgroup or route.no_new_privs):
            raise ValueError("--strategy subprocess has no --rlimit, --cgroup or --no-new-privs")
        if route.mode == "ws" and find_spec("websockets") is None:
            raise ValueError("--mode ws needs websockets: pip install 'fastspawn[ws]'")
        Placeholders(route)
        if route.strategy in ("snapshot", "auto", "reset") and route.snapshot_at == "effect":
            why = why_not_alike(route)
            if why:
                raise ValueError(f"--snapshot-at effect is for requests that are alike: {why}")
        if route.strategy in ("snapshot", "auto", "reset") and route.snapshot_at == "imports":
            route = _launched(route)
    except ValueError as error:
        place = where or ("" if route.path == paths.ANY_PATH else f"{title(route)}: ")
        raise SettingsError(f"{place}{error}") from error
    return route


def _launched(route: RouteConfig) -> RouteConfig:
    """Its script is run by what has a checkpoint where its imports have run."""
    at = "--snapshot-at imports"
    if route.shell or route.cgi_dir is not None:
        raise ValueError(f"{at} is for the command of one Python script")
    try:
        return replace(route, command=launched(route.command))
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from error


def _check_need(
    option: options.Option,
    given: Mapping[str, Any],
    places: Sequence[RouteConfig | Mapping[str, Any]],
) -> None:
    """Refuse an option of ``given`` of which nothing would come in any of ``places``. Raises
    SettingsError."""
    need = option.need
    if need is None or given.get(option.field, False) is False:
        return
    if any(_has(need, place) for place in places):
        return
    text = f"--{option.name} needs {need}"
    if need.values:
        # The default, perhaps: it is not to be seen among what was given.
        text += f" (it is {', '.join(sorted({getattr(each, need.options[0]) for each in places}))})"
    raise SettingsError(text)


def _has(need: options.Need, place: RouteConfig | Mapping[str, Any]) -> bool:
    fields = [name.replace("-", "_") for name in need.options]
    if isinstance(place, Mapping):
        return any(place.get(field) for field in fields)
    if need.other is not None and _has(need.other, place):
        return True
    found = [getattr(place, field) for field in fields]
    return any(value in need.values if need.values else value for value in found)


def _check_cors(route: RouteConfig) -> None:
    """Raises ValueError."""
    if not route.cors:
        return
    if "*" in route.cors and route.cors_credentials:
        # It would be any site, with the cookies of whoever looks at it.
        raise ValueError("--cors '*' can't be with --cors-credentials: name the sites")
    for name, _ in route.header:
        if name.lower().startswith("access-control-") and name.lower() != (
            "access-control-expose-headers"
        ):
            raise ValueError(f"--header {name} can't be with --cors, which sets it")


def _check_terminal(route: RouteConfig) -> None:
    """Raises ValueError."""
    if sys.platform != "linux":
        raise ValueError("--pty is for Linux only")
    if route.strategy != "direct":
        raise ValueError(f"--pty can't be with --strategy {route.strategy}: only with direct")
    if route.ws_frames == "lines":
        raise ValueError("--pty can't be with --ws-frames lines: a terminal has none")
    if route.stderr != "inherit":
        raise ValueError(f"--pty can't be with --stderr {route.stderr}: it is the terminal, too")


def _fit_pool(route: RouteConfig) -> RouteConfig:
    """Requests wait where their time is limited: no more than there are workers go further."""
    size = default_size() if route.pool_size is None else route.pool_size
    if size < 1:
        raise ValueError("--strategy pool needs a --pool-size of at least 1")
    return replace(route, pool_size=size, max_inflight=min(route.max_inflight, size))


def _command(command: str | tuple[str, ...], shell: bool) -> tuple[str, ...]:
    if shell:
        words = (command,) if isinstance(command, str) else command
        if len(words) != 1:
            raise ValueError("for a shell it must be one word: quote it")
        return words
    words = tuple(shlex.split(command)) if isinstance(command, str) else command
    if not words:
        raise ValueError("nothing to run")
    return words


def _add_up(routes: tuple[RouteConfig, ...]) -> None:
    """Refuse two routes for the same requests."""
    router: paths.Router[RouteConfig] = paths.Router()
    try:
        for route in routes:
            router.add(paths.parse(route.path), route.methods, route)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _own_paths(merged: Mapping[str, Any]) -> None:
    """Refuse one path for two things."""
    seen: dict[str, str] = {}
    for field in ("health_path", "ready_path", "metrics_path", "live_path"):
        path = merged.get(field)
        if path is not None and (other := seen.setdefault(path, field)) != field:
            raise SettingsError(f"--{other} and --{field} are the same".replace("_", "-"))


def _loop(name: str) -> str:
    if name != "auto":
        if name == "uvloop" and find_spec("uvloop") is None:
            raise SettingsError("--loop uvloop: uvloop is not installed")
        return name
    return "asyncio" if find_spec("uvloop") is None else "uvloop"
