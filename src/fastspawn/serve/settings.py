"""From flags, environment variables and a file to one ``Config``.

A flag goes before a variable, and that before the file. An option of a route that is given for
the whole server counts for each route that does not say otherwise; the lists (``set-env``,
``pass-env``, ``rlimit``, ``cgi-link-dir``, ``ws-origin``, ``ws-subprotocol``) add up.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Final

from fastspawn.pool import default_size

from . import configfile, options, paths, tls
from .config import Config, RouteConfig
from .filling import Filling, why_not_alike

_PLACES: Final = ("fd", "uds", "host", "port")
"""Options that say where to listen."""
_FIXED: Final = (
    *("host", "port", "uds", "uds_mode", "fd", "backlog"),
    *("workers", "loop", "spawners", "max_inflight_total", "metrics_path"),
    *("request_id", "tcp_keepalive", "tcp_user_timeout"),
    *tls.FIELDS,
    *("user", "group", "subreaper"),
)
"""Fields that a reload can't change."""
_SUMS: Final = ("set_env", "pass_env", "rlimit", "cgi_link_dir", "ws_origin", "ws_subprotocol")


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
        variables = options.from_environment(environ)
        path = flags.get("config", variables.get("config"))
        file = {} if path is None else configfile.read(path)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    merged: dict[str, Any] = {}
    for name, level in (("", file), ("FASTSPAWN_", variables), ("--", flags)):
        _one_place(level, name, merged)
        merged |= level
    merged["config"] = path
    return _config(merged)


def reloaded(old: Config, new: Config) -> tuple[Config, str]:
    """``new`` as far as a running server can become it, and a note about what it can't."""
    fixed = {name: getattr(old, name) for name in _FIXED}
    differ = [name for name, value in fixed.items() if getattr(new, name) != value]
    note = f" ({', '.join(differ)}: not before a restart)".replace("_", "-") if differ else ""
    return replace(new, **fixed), note


def _one_place(level: Mapping[str, Any], prefix: str, merged: dict[str, Any]) -> None:
    """Refuse more than one way to say where to listen, and let a level's replace those below."""
    ways = [way for way in _PLACES if way in level]
    if "host" in ways and "port" in ways:
        ways.remove("port")
    if len(ways) > 1:
        names = [prefix + (way.upper() if prefix == "FASTSPAWN_" else way) for way in ways]
        raise SettingsError(f"{names[0]} and {names[1]} exclude each other")
    if level.get("fd") in (0, 1, 2):
        raise SettingsError(f"--fd {level['fd']}: 0, 1 and 2 are the standard streams")
    if ways:
        tcp = ("host", "port")
        for way in _PLACES:
            if way not in ways and not (way in tcp and ways[0] in tcp):
                merged.pop(way, None)
        if "uds" not in ways:
            merged.pop("uds_mode", None)


def _config(merged: dict[str, Any]) -> Config:
    common = {
        option.field: merged.pop(option.field)
        for option in options.OPTIONS.values()
        if option.of_route and option.field in merged
    }
    given = merged.pop("route", [])
    # Not for each route: like CMD, it answers what they do not.
    rest = {
        name: value
        for name, value in (("command", merged.pop("command", None)),
                            ("cgi_dir", common.pop("cgi_dir", None)))
        if value is not None
    }  # fmt: skip
    if not given and "cgi_dir" in rest:
        # They can be about nothing else.
        rest |= {name: common[name] for name in ("mode", "shell") if name in common}
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
    if "cgi_dir" in fields:
        if "command" in fields:
            raise SettingsError(f"{where or ''}a command and --cgi-dir exclude each other")
        if own.get("mode", "cgi") != "cgi":
            raise SettingsError(f"{where or ''}--cgi-dir is mode cgi, not {own['mode']}")
        if own.get("shell"):
            raise SettingsError(f"{where or ''}--shell is for a command, not --cgi-dir")
        fields["mode"] = "cgi"
        if fields.get("strategy") == "snapshot":
            raise SettingsError(
                f"{where or ''}--strategy snapshot is for one program, not --cgi-dir"
            )
    if fields.get("mode") == "ws":
        fields.setdefault("exec_timeout", None)
    for name in _SUMS:
        fields[name] = (*common.get(name, ()), *own.get(name, ()))
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
        if route.strategy == "pool":
            route = _fit_pool(route)
        if route.strategy == "subprocess" and (route.rlimit or route.cgroup or route.no_new_privs):
            raise ValueError("--strategy subprocess has no --rlimit, --cgroup or --no-new-privs")
        if route.mode == "ws" and find_spec("websockets") is None:
            raise ValueError("--mode ws needs websockets: pip install 'fastspawn[ws]'")
        filling = Filling(route)
        if route.strategy in ("snapshot", "auto") and route.snapshot_at == "effect":
            why = why_not_alike(route, filling)
            if why:
                raise ValueError(f"--snapshot-at effect is for requests that are alike: {why}")
    except ValueError as error:
        place = where or ("" if route.path == paths.ANY_PATH else f"{title(route)}: ")
        raise SettingsError(f"{place}{error}") from error
    return route


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
    found = [getattr(place, field) for field in fields]
    return any(value in need.values if need.values else value for value in found)


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
    for field in ("health_path", "ready_path", "metrics_path"):
        path = merged.get(field)
        if path is not None and (other := seen.setdefault(path, field)) != field:
            raise SettingsError(f"--{other} and --{field} are the same".replace("_", "-"))


def _loop(name: str) -> str:
    if name != "auto":
        if name == "uvloop" and find_spec("uvloop") is None:
            raise SettingsError("--loop uvloop: uvloop is not installed")
        return name
    return "asyncio" if find_spec("uvloop") is None else "uvloop"
