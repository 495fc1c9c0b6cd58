#!/bin/sh
# lighttpd 1.4.69 (Debian 12): mod_proxy passes an answer that its backend broke off for a whole one, if
# the answer was chunked.
#
# Expected: a chunked body without its last chunk is incomplete (RFC 9112, 8), which a gateway tells its
# client by breaking off in turn, or by a 502 where nothing has been sent yet. nginx, Apache, HAProxy,
# Varnish and Squid of the same release do the former.
# Seen: lighttpd keeps the answer until the backend's connection ends, and then counts what has come and sends
# it with a Content-Length of its own making: 200, complete. A backend that is killed in the middle of an
# export, and says so in the only way that HTTP has after its head, has sent a shorter export. It makes no
# difference whether the end comes between two chunks or within one. With a Content-Length of the
# backend's the client can tell. server.stream-response-body = 1 is better by luck only: what comes
# in one piece together with the end is whole again. 1.4.79 (Debian 13) does the same; 1.4.85 breaks off.
#
# Needs Debian 12's package archive (apt-get update as root first), amd64, and Python.
# Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
for package in lighttpd=1.4.69-1 libnettle8=3.8.1-2 libxxhash0=0.8.1-1; do
    apt-get -qq download "$package"
done
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH
root/usr/sbin/lighttpd -v | head -1

cat >backend.py <<'END'
import http.server
import threading

HALF = 1000 * b"x"


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Half of the body, and the end of the connection, at once or after the client's word."""
        self.close_connection = True
        name, _, late = self.path[1:].partition("-")
        self.send_response(200)
        if name == "length":
            self.send_header("Content-Length", str(2 * len(HALF)))
            sent = HALF
        else:
            self.send_header("Transfer-Encoding", "chunked")
            size = {"whole": 1, "between": 1, "within": 2}[name] * len(HALF)
            sent = b"%x\r\n%b%b" % (size, HALF, b"" if name == "within" else b"\r\n")
        self.end_headers()
        self.wfile.write(sent + (b"0\r\n\r\n" if name == "whole" else b""))
        if late:
            goes_on.wait(60)

    def do_POST(self):
        goes_on.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


goes_on = threading.Event()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
print(server.server_address[1], flush=True)
server.serve_forever()
END

cat >ask.py <<'END'
import http.client
import sys
import urllib.request

front, back, path = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(front), timeout=60)
connection.request("GET", path)
if path.endswith("-late"):
    # With streaming, the first half is on its way before the backend ends.
    answer = connection.getresponse()
    answer.read(1)
    urllib.request.urlopen(f"http://127.0.0.1:{back}/", data=b"").close()
else:
    answer = connection.getresponse()
try:
    answer.read()
    print(answer.status, "whole")
except http.client.IncompleteRead:
    print(answer.status, "cut")
END

port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# lighttpd LINE: one before the backend, with that line in its configuration; sets front
lighttpd() {
    front=$(port)
    cat >"$front.conf" <<END
server.document-root = "$folder"
server.bind = "127.0.0.1"
server.port = $front
server.modules = ("mod_proxy")
$1
proxy.server = ("" => (("host" => "127.0.0.1", "port" => $back)))
END
    root/usr/sbin/lighttpd -D -f "$front.conf" -m root/usr/lib/lighttpd 2>"$front.log" &
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
lighttpd ""
tell whole "200 whole"
tell between "200 whole"
tell within "200 whole"
tell length "200 cut"
echo "with server.stream-response-body = 1"
lighttpd "server.stream-response-body = 1"
tell whole "200 whole"
tell between-late "200 cut"
tell within-late "200 cut"
tell length "200 cut"
exit $changed
# Seen: lighttpd/1.4.69 (ssl) - a light and fast webserver
#       by default
#           whole: 200 whole
#           between: 200 whole
#           within: 200 whole
#           length: 200 cut
#       with server.stream-response-body = 1
#           whole: 200 whole
#           between-late: 200 cut
#           within-late: 200 cut
#           length: 200 cut
