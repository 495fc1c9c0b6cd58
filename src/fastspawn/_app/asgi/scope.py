"""The scope of a request, of CGI's variables (RFC 3875)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_from_bytes

VERSIONS = {"version": "3.0", "spec_version": "2.4"}
_UNENCODED = "/:@!$&'()*+,;=~"
"""RFC 3986, section 3.3."""

_OTHERS = ("CONTENT_TYPE", "CONTENT_LENGTH")
"""Fields with variables of their own."""


def scope_of(request: Mapping[str, str], state: dict[str, Any]) -> dict[str, Any]:
    """``request``: texts in latin-1, as WSGI has them. The path is as the server has decoded it;
    ``raw_path`` as it was sent."""
    root, path = (request.get(name, "") for name in ("SCRIPT_NAME", "PATH_INFO"))
    whole = (root + path).encode("latin-1") or b"/"
    uri = request.get("REQUEST_URI", "").encode("latin-1")
    return {
        "type": "http",
        "asgi": VERSIONS.copy(),
        "http_version": _version(request.get("SERVER_PROTOCOL", "")),
        "method": request["REQUEST_METHOD"].upper(),
        "scheme": request.get("REQUEST_SCHEME") or _scheme(request.get("HTTPS", "")),
        "path": whole.decode(errors="replace"),
        "raw_path": uri.partition(b"?")[0] or quote_from_bytes(whole, _UNENCODED).encode(),
        "query_string": request.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": root.encode("latin-1").decode(errors="replace"),
        "headers": _headers(request),
        "client": _address(request.get("REMOTE_ADDR"), request.get("REMOTE_PORT")),
        "server": _address(
            request.get("SERVER_ADDR") or request.get("SERVER_NAME"), request.get("SERVER_PORT")
        ),
        "state": state.copy(),
        "extensions": {},
    }


def _version(protocol: str) -> str:
    """ "2" and "3" have no minor one (RFC 9110, section 2.5)."""
    number = protocol.partition("/")[2] or "1.1"
    return number.removesuffix(".0") if number > "1.1" else number


def _scheme(https: str) -> str:
    return "https" if https.lower() in ("on", "1", "yes") else "http"


def _headers(request: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    found = []
    for name, value in request.items():
        if not name.startswith("HTTP_") and (name not in _OTHERS or not value):
            continue
        field = name.removeprefix("HTTP_").replace("_", "-").lower()
        found.append((field.encode("latin-1"), value.encode("latin-1")))
    return found


def _address(host: str | None, port: str | None) -> tuple[str, int] | None:
    """None: of a Unix socket, which has none."""
    return (host, int(port or 0)) if host else None
