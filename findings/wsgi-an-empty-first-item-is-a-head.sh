#!/bin/sh
# wsgiref (of the interpreter), Werkzeug 3.1.9, gunicorn 27.0.1, waitress 3.0.2, cheroot 11.1.2: what
# an application may still say after an empty first item depends on the server.
#
# Expected: PEP 3333 lets an application yield empty strings while it has nothing to say, has the
# server send the status and headers with the first item that is not empty, and lets an application
# that fails before that replace them by start_response(..., exc_info). So a page that begins with
# b"" and then fails is a 500 with an error page everywhere, in the PEP's own reference server above
# all.
# Seen: only waitress and cheroot wait for a byte. wsgiref, Werkzeug and gunicorn send the head with
# the first item, empty or not: the application's second start_response raises what it was given, and
# the client has a 200 with no body. From wsgiref and Werkzeug that answer ends as a complete one
# does (HTTP/1.0, by the end of the connection), so nobody can tell it from an empty page; gunicorn's
# lacks its last chunk. Middleware that yields b"" first, as the PEP advises for one that is not
# ready, turns error pages into empty successes under three of five servers.
#
# Needs Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gunicorn==27.0.1 waitress==3.0.2 cheroot==11.1.2 Werkzeug==3.1.9
cd "$folder"

cat >app.py <<'END'
import sys


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    try:
        raise LookupError("no such page")
    except LookupError:
        start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
    yield b"sorry"
END

cat >serve.py <<'END'
import socket
import sys

from app import app

kind = sys.argv[1]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
print(port, flush=True)
if kind == "wsgiref":
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", port, app).serve_forever()
elif kind == "werkzeug":
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, app)
elif kind == "waitress":
    from waitress import serve

    serve(app, host="127.0.0.1", port=port)
elif kind == "cheroot":
    from cheroot.wsgi import Server

    Server(("127.0.0.1", port), app).start()
else:
    sys.argv = ["gunicorn", "--bind", f"127.0.0.1:{port}", "app:app"]
    from gunicorn.app.wsgiapp import run

    run()
END

cat >measure.py <<'END'
import http.client
import subprocess
import sys
import time

HEAD_AT_ONCE = {"wsgiref": "200, whole", "werkzeug": "200, whole", "gunicorn": "200, cut"}
WAITS = {"waitress": "500, whole, sorry", "cheroot": "500, whole, sorry"}


def connect(port):
    while True:  # until it listens
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            client.connect()
            return client
        except ConnectionRefusedError:
            time.sleep(0.05)


def ask(port):
    client = connect(port)
    client.request("GET", "/")
    answer = client.getresponse()
    try:
        body, end = answer.read(), "whole"
    except http.client.IncompleteRead as cut:
        body, end = cut.partial, "cut"
    client.close()
    return ", ".join([str(answer.status), end, *([body.decode()] if body else [])])


failed = False
for kind, expected in {**HEAD_AT_ONCE, **WAITS}.items():
    server = subprocess.Popen(
        [sys.executable, "serve.py", kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        seen = ask(int(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    print(f"{kind}: {seen}")
    failed |= seen != expected
sys.exit(failed)
END
"$folder/venv/bin/python" measure.py
