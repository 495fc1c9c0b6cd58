#!/bin/sh
# uvicorn 0.54.0 with httptools 0.9.0: a header field's value that a client wrote with blanks behind it
# has them in the application, too. With h11 0.16.0 the same server strips them.
#
# Expected: blanks around a value are none of it, and a parser leaves them out (RFC 9110, 5.5; RFC 9112,
# 5.1); Hypercorn, Granian, aiohttp, gunicorn, Node and Bun do. Which of its two parsers uvicorn uses is a
# matter of speed.
# Seen: httptools' parser, llhttp, skips blanks before a value and gives those behind it to its caller: Node,
# which is built on the same parser, takes them off itself; uvicorn does not. So "application/json " is
# not "application/json" to an application that compares, for whoever installed uvicorn[standard], which
# brings httptools and prefers it: tests that were run with plain uvicorn, or with a test client that has
# no parser at all, do not meet it.
#
# Needs Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0 hypercorn==0.18.0 granian==2.8.9

cat >app.py <<'END'
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    value = repr(dict(scope["headers"])[b"content-type"]).encode()
    headers = [(b"content-length", b"%d" % len(value))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": value})
END

cat >ask.py <<'END'
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as client:
    fields = b"Host: localhost\r\nConnection: close\r\nContent-Type: \t application/json \t\r\n"
    client.sendall(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")
    answer = b"".join(iter(lambda: client.recv(65536), b""))
print(answer.partition(b"\r\n\r\n")[2].decode())
END

port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

changed=0
# tell NAME EXPECTED COMMAND...: what the application gets; PORT in the command is one that is free
tell() {
    name=$1 expected=$2 port=$(port)
    shift 2
    "venv/bin/$1" $(echo "$2" | sed "s/PORT/$port/") app:app >log 2>&1 &
    pid=$!
    pids="$pids $pid"
    until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2>/dev/null; do
        kill -0 $pid || { cat log; exit 1; }
        sleep 0.1
    done
    seen=$(python3 ask.py "$port")
    printf '%-20s%s\n' "$name" "$seen"
    test "$seen" = "$expected" || { echo "changed: expected $expected"; changed=1; }
}

tell "uvicorn, httptools" "b'application/json \\t'" uvicorn "--http httptools --port PORT"
tell "uvicorn, h11" "b'application/json'" uvicorn "--http h11 --port PORT"
tell hypercorn "b'application/json'" hypercorn "--bind 127.0.0.1:PORT"
tell granian "b'application/json'" granian "--interface asgi --port PORT"
exit $changed
# Seen: uvicorn, httptools  b'application/json \t'
#       uvicorn, h11        b'application/json'
#       hypercorn           b'application/json'
#       granian             b'application/json'
