"""--ssl-certfile and the others, with certificates that openssl makes here."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import BOUND, Client, Server, alive, poll
from serve.test_cli import assert_refused, run

Script = Callable[..., tuple[str, ...]]

HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'


def openssl(*words: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


class Authority:
    """Signs certificates for "localhost" and for clients."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.cert = directory / "ca.pem"
        self._key = directory / "ca.key"
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", self._key),
            *("-out", self.cert),
        )

    def sign(self, name: str, *more: str, subject: str = "", names: str = "") -> tuple[str, str]:
        """Certificate and key; ``more``: how the key is encrypted; ``subject``: as openssl takes
        it, instead of the name; ``names``: alternative ones."""
        base = self._directory / name
        request, key, cert, extensions = (
            base.with_suffix(suffix) for suffix in (".csr", ".key", ".pem", ".ext")
        )
        extensions.write_text(f"subjectAltName={names or 'DNS:localhost,IP:127.0.0.1'}\n")
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *(more or ("-nodes",)),
            *("-subj", subject or f"/CN={name}", "-utf8", "-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-days", "2", "-in", request, "-CA", self.cert, "-CAkey", self._key),
            *("-CAcreateserial", "-extfile", extensions, "-out", cert),
        )
        return str(cert), str(key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[str, str]:
    return authority.sign("server")


def options(pair: tuple[str, str]) -> tuple[str, ...]:
    return "--ssl-certfile", pair[0], "--ssl-keyfile", pair[1]


def connect(server: Server, authority: Authority, own: tuple[str, str] | None = None) -> Client:
    """Checks the server's certificate."""
    context = ssl.create_default_context(cafile=str(authority.cert))
    if own is not None:
        context.load_cert_chain(*own)
    sock = socket.create_connection(("127.0.0.1", server.port), BOUND)
    try:
        return Client(context.wrap_socket(sock, server_hostname="localhost"))
    except BaseException:
        sock.close()
        raise


@pytest.mark.parametrize("workers", ["1", "2"])
def test_requests(serve: Serve, authority: Authority, pair: tuple[str, str], workers: str) -> None:
    server = serve(*options(pair), "--workers", workers, "--route", "/cat=cat")
    server.says(" on https://127.0.0.1:")
    body = bytes(range(256)) * 2000
    with connect(server, authority) as client:
        for _ in range(3):
            client.get()
            assert client.read().body == b"hi\n"
        client.request("POST", "/cat", f"Content-Length: {len(body)}", body=body)
        answer = client.read()
        assert answer.complete
        assert answer.body == body
        client.get("/", "Connection: close")
        assert client.read().body == b"hi\n"
        assert client.ended()


@needs.program("curl")
def test_curl(serve: Serve, authority: Authority, pair: tuple[str, str]) -> None:
    server = serve(*options(pair))
    done = subprocess.run(
        ["curl", "-sS", "--http1.1", "--cacert", authority.cert, "-w", "%{ssl_verify_result}",
         f"https://localhost:{server.port}/"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("hi\n0", "")


def test_scripts_know(serve: Serve, authority: Authority, pair: tuple[str, str]) -> None:
    command = ("sh", "-c", r'printf "Content-Type: a/b\n\n%s %s" "$HTTPS" "$REQUEST_SCHEME"')
    server = serve("--mode", "cgi", *options(pair), command=command)
    with connect(server, authority) as client:
        client.get()
        assert client.read().body == b"on https"


def test_plain_and_half_a_handshake(
    serve: Serve, authority: Authority, pair: tuple[str, str]
) -> None:
    server = serve(*options(pair), "--header-timeout", "500ms")
    with server.connect() as plain, server.connect() as silent:
        plain.get()
        with contextlib.suppress(ConnectionResetError):  # before it was even looked at
            assert b"HTTP/" not in plain.read_to_end()
        assert silent.ended()

    def serves() -> bool:
        with contextlib.suppress(OSError), connect(server, authority) as client:
            return client.answered()
        return False

    poll(serves, "an answer to one whose handshake is in time")
    assert "Traceback" not in server.errors()


def test_refusal_before_the_body(serve: Serve, authority: Authority, pair: tuple[str, str]) -> None:
    """The answer arrives although the client goes on sending."""
    server = serve(*options(pair), "--max-body", "10")
    with connect(server, authority) as client:
        client.request("POST", "/", "Content-Length: 300000", body=b"x" * 100_000)
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (413, "close")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves(
    serve: Serve, authority: Authority, pair: tuple[str, str], script: Script, tmp_path: Path,
    how: str,
) -> None:  # fmt: skip
    held = tmp_path / "pid"
    server = serve(*options(pair), command=script(HOLD, held))
    client = connect(server, authority)
    client.get()
    poll(held.exists, "a process's start")
    if how == "close":
        client.sock.close()
    else:
        client.reset()
    poll(lambda: not alive(int(held.read_text())), "the process's end")


def test_broken_answer(
    serve: Serve, authority: Authority, pair: tuple[str, str], script: Script, tmp_path: Path
) -> None:
    """A stream whose process fails has no end."""
    go = tmp_path / "go"
    text = 'head -c 100000 /dev/zero; while [ ! -e "$1" ]; do sleep 0.01; done; exit 1'
    server = serve(*options(pair), command=script(text, go))
    with connect(server, authority) as client:
        client.get()
        head = client.read_head()
        go.touch()
        assert not client.read_body(head).complete


def test_stops_with_idle_clients(serve: Serve, authority: Authority, pair: tuple[str, str]) -> None:
    server = serve(*options(pair), "--graceful-timeout", "none")
    with connect(server, authority) as client:
        client.get()
        client.read()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_clients_with_certificates(
    serve: Serve, authority: Authority, pair: tuple[str, str]
) -> None:
    server = serve(*options(pair), "--ssl-ca-certs", str(authority.cert))
    with connect(server, authority, authority.sign("client")) as client:
        client.get()
        assert client.read().body == b"hi\n"
    # TLS 1.3 lets the client finish the handshake before it is refused.
    with connect(server, authority) as client:
        try:
            client.get()
            assert client.read_to_end() == b""
        except OSError:
            pass
    assert "Traceback" not in server.errors()


def test_key_with_a_password(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command sees it."""
    pair = authority.sign("locked", "-passout", "pass:secret")
    monkeypatch.setenv("FASTSPAWN_SSL_KEYFILE_PASSWORD", "secret")
    for workers in ("1", "2"):
        server = serve(*options(pair), "--workers", workers, command=("env",))
        with connect(server, authority) as client:
            client.get()
            assert b"secret" not in client.read().body


def test_new_certificate(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """SIGHUP: for new connections; those that there are go on."""
    first, second = authority.sign("first"), authority.sign("second")
    cert, key, config = (tmp_path / name for name in ("cert", "key", "serve.toml"))
    config.write_text(f'ssl-certfile = "{cert}"\nssl-keyfile = "{key}"\n')

    def put(pair: tuple[str, str]) -> None:
        for source, to in zip(pair, (cert, key), strict=True):
            shutil.copy(source, to)

    def subject(client: Client) -> str:
        assert isinstance(client.sock, ssl.SSLSocket)
        return str(client.sock.getpeercert())

    put(first)
    server = serve("--config", str(config))
    with connect(server, authority) as old:
        assert "first" in subject(old)
        put(second)
        server.signal(signal.SIGHUP)
        poll(lambda: server.errors().count("reloaded") == 1, "a reload")
        with connect(server, authority) as new:
            assert "second" in subject(new)
        key.write_text("nonsense")
        server.signal(signal.SIGHUP)
        poll(lambda: "not reloaded: --ssl-certfile" in server.errors(), "word of it")
        with connect(server, authority) as new:
            assert "second" in subject(new)
        old.get()
        assert old.read().body == b"hi\n"


def test_mistakes(authority: Authority, pair: tuple[str, str], tmp_path: Path) -> None:
    cert, key = pair
    other = authority.sign("other")[1]
    locked = authority.sign("locked2", "-passout", "pass:secret")
    for words, text in (
        (("--ssl-keyfile", key), "--ssl-keyfile needs --ssl-certfile"),
        (("--ssl-certfile", "/no"), "--ssl-certfile /no: No such file or directory"),
        (("--ssl-certfile", cert, "--ssl-keyfile", other), "key values mismatch"),
        (("--ssl-certfile", cert), "--ssl-certfile"),
        (options(locked), "--ssl-certfile"),
        ((*options(pair), "--ssl-ca-certs", "/no"), "--ssl-ca-certs /no: No such file"),
        ((*options(pair), "--ssl-ciphers", "x"), "--ssl-ciphers x: No cipher"),
        ((*options(pair), "--ssl-cert-reqs", "optional"), "--ssl-cert-reqs needs --ssl-ca-certs"),
        (
            (*options(pair), "--ssl-ca-certs", cert, "--ssl-cert-reqs", "maybe"),
            "--ssl-cert-reqs: 'maybe' is not one of optional, required",
        ),
    ):
        assert_refused(run(*words), text)
