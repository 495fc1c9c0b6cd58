"""TLS: the context that connections are accepted with, from ``--ssl-certfile`` and the others."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastspawn.serve.config.model import Config

_SHUTDOWN: Final = 2.0
"""Seconds for a client to answer the end of a TLS session, before it is taken as answered."""


class TlsError(ValueError):
    """What is wrong with a certificate, a key or the like, in one line."""


def context(config: Config) -> ssl.SSLContext | None:
    """TLS 1.2 or later, HTTP/1.1 only; None: not asked for. Raises TlsError."""
    if config.ssl_certfile is None:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.set_alpn_protocols(["http/1.1"])
    _load(made, config)
    if config.ssl_ca_certs is not None:
        try:
            made.load_verify_locations(config.ssl_ca_certs)
        except OSError as error:
            raise TlsError(f"--ssl-ca-certs {config.ssl_ca_certs}: {_why(error)}") from error
        required = config.ssl_cert_reqs == "required"
        made.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    if config.ssl_ciphers is not None:
        try:
            made.set_ciphers(config.ssl_ciphers)
        except ssl.SSLError as error:
            raise TlsError(f"--ssl-ciphers {config.ssl_ciphers}: {_why(error)}") from error
    return made


def renew(used: ssl.SSLContext, config: Config) -> None:
    """Take the certificate and key, as the files have them now, for the connections to come.

    Raises TlsError: then those of before stay.
    """
    context(config)
    _load(used, config)


def arguments(config: Config, used: ssl.SSLContext | None) -> dict[str, Any]:
    """Of ``loop.create_server``."""
    if used is None:
        return {}
    more = {"ssl": used, "ssl_handshake_timeout": config.header_timeout}
    if config.loop == "uvloop" or sys.version_info >= (3, 11):
        more["ssl_shutdown_timeout"] = _SHUTDOWN
    return more


def _load(made: ssl.SSLContext, config: Config) -> None:
    assert config.ssl_certfile is not None
    # Without one, OpenSSL would ask the terminal.
    password = config.ssl_keyfile_password or ""
    try:
        made.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, lambda: password)
    except (OSError, ValueError) as error:
        files = ", ".join(filter(None, (config.ssl_certfile, config.ssl_keyfile)))
        raise TlsError(f"--ssl-certfile {files}: {_why(error)}") from error


def _why(error: Exception) -> str:
    # An SSLError of Python's own making has neither attribute.
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or " ".join(map(str, error.args))
