#!/bin/sh
# nginx 1.22.1 (Debian 12): whether proxy_buffering holds an answer back is decided by how the backend
# frames it. Chunks go through at once, with buffering on.
#
# Expected: buffering is on by default, so a few bytes now and then (events, a log, progress) wait in
# nginx until a buffer is full or the answer ends, unless it is switched off there or by
# X-Accel-Buffering. The version of HTTP between nginx and the backend is about connections.
# Seen: a chunk is sent on as soon as it is there, however small; the same bytes with a Content-Length, or
# that end with the connection, wait for the end. And since nginx asks in HTTP/1.0 by default, where a
# backend may not use chunks, "proxy_http_version 1.1" alone, set to reuse connections, makes an endless
# answer appear that was never seen before, and an application's Content-Length (of a progress page, a
# download that is made as it goes) takes the flow away again. What was seen to stream behind one
# backend says nothing for the next; "proxy_buffering off" does. 1.30.6 is the same but for its default, which
# is HTTP/1.1 by then: there the upgrade alone makes such answers flow.
#
# Needs Debian 12's package archive (apt-get update as root first), amd64, and Python.
# Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download nginx=1.22.1-9+deb12u11
dpkg -x nginx_*.deb root
root/usr/sbin/nginx -v 2>&1

cat >backend.py <<'END'
import http.server
import threading


class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """b"one", and b"two" when the client has told that it may come."""
        goes_on.clear()
        chunked = self.path == "/stream" and self.request_version == "HTTP/1.1"
        self.send_response(200)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif self.path == "/length":
            self.send_header("Content-Length", "6")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        for word in b"one", b"two":
            self.wfile.write(b"3\r\n%b\r\n" % word if chunked else word)
            goes_on.wait(60)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        goes_on.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


goes_on = threading.Event()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
print(server.server_address[1], flush=True)
server.serve_forever()
END

cat >ask.py <<'END'
import socket
import sys
import urllib.request

front, back, path = sys.argv[1:]
with socket.create_connection(("127.0.0.1", int(front))) as client:
    client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
    client.settimeout(3)
    data = b""
    try:
        while b"one" not in data:
            data += client.recv(65536)
        seen = "at once"
    except TimeoutError:
        seen = "held"
    urllib.request.urlopen(f"http://127.0.0.1:{back}/", data=b"").close()
    client.settimeout(60)
    while piece := client.recv(65536):
        data += piece
    assert b"two" in data, data
    print(seen)
END

port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# nginx LINES: one before the backend, with those lines beside proxy_pass; sets front
nginx() {
    front=$(port)
    mkdir "$front"
    cat >"$front/nginx.conf" <<END
daemon off;
master_process off;
pid $folder/$front/pid;
error_log $folder/$front/errors;
events {}
http {
    access_log off;
    client_body_temp_path $folder/$front/body;
    proxy_temp_path $folder/$front/proxy;
    fastcgi_temp_path $folder/$front/fastcgi;
    uwsgi_temp_path $folder/$front/uwsgi;
    scgi_temp_path $folder/$front/scgi;
    server {
        listen 127.0.0.1:$front;
        location / {
            proxy_pass http://127.0.0.1:$back;
            $1
        }
    }
}
END
    root/usr/sbin/nginx -p "$folder/$front" -c nginx.conf -e "$folder/$front/errors" &
    pids="$pids $!"
    until python3 -c "import socket; socket.create_connection(('127.0.0.1', $front))" 2>/dev/null; do
        sleep 0.1
    done
}

changed=0
# tell PATH EXPECTED
tell() {
    seen=$(python3 ask.py "$front" "$back" "/$1")
    echo "    $1: $seen"
    test "$seen" = "$2" || { echo "changed: expected $2"; changed=1; }
}

python3 backend.py >backend &
pids="$pids $!"
until test -s backend; do sleep 0.1; done
read -r back <backend

echo "by default"
nginx ""
tell stream "held"
tell length "held"
echo "proxy_http_version 1.1"
nginx "proxy_http_version 1.1;"
tell stream "at once"
tell length "held"
tell end "held"
echo "proxy_buffering off"
nginx "proxy_buffering off;"
tell stream "at once"
tell length "at once"
exit $changed
# Seen: nginx version: nginx/1.22.1
#       by default
#           stream: held
#           length: held
#       proxy_http_version 1.1
#           stream: at once
#           length: held
#           end: held
#       proxy_buffering off
#           stream: at once
#           length: at once
