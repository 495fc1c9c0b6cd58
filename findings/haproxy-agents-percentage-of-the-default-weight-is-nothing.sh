#!/bin/sh
# HAProxy 2.6.12 (Debian 12): a server whose agent-check says "up 99%" gets no request at all, as
# long as its weight is the default one.
#
# Expected: a percentage told by the agent is one of the configured weight, so that a server with a
# third of its places taken says "67%" and gets two thirds of its share. With one server, or with
# several that all say the same, percentages should change nothing.
# Seen: the default weight is 1, and the product is an integer: 1 * 99 / 100 is 0, which means "drain".
# The backend answers 503 with no server available, although the health check is green and the
# agent says "up"; 100 % is the only percentage that works. With "weight 100" the same agent is
# understood.
#
# Needs Debian 12's package archive (apt-get update as root first), amd64, and Python.
# Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
for package in haproxy=2.6.12-1+deb12u4 liblua5.3-0=5.3.6-2 \
    libopentracing-c-wrapper0=1.1.3-3+b1 libopentracing1=1.6.0-4; do
    apt-get -qq download "$package"
done
for package in *.deb; do dpkg -x "$package" root; done
LD_LIBRARY_PATH=$(dirname "$(find root -name 'liblua5.3.so.0')")
export LD_LIBRARY_PATH
haproxy=root/usr/sbin/haproxy
"$haproxy" -v | head -1

cat >server.py <<'END'
import http.server, socketserver, sys, threading


class Agent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"ready up %b%%\n" % sys.argv[1].encode())


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *args):
        pass


agent = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Agent)
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=agent.serve_forever, daemon=True).start()
print(web.server_address[1], agent.server_address[1], flush=True)
web.serve_forever()
END

cat >ask.py <<'END'
import socket, sys, time, urllib.request, urllib.error


def told(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"show stat\n")
        lines = b"".join(iter(lambda: client.recv(65536), b"")).decode().splitlines()
    names = lines[0].lstrip("# ").split(",")
    return next(row for row in (dict(zip(names, line.split(","))) for line in lines[1:] if line)
                if row["svname"] == "one")


for _ in range(600):  # until the agent has been asked
    try:
        seen = told(sys.argv[1])
        if seen["agent_status"] == "L7OK":
            break
    except OSError:
        pass
    time.sleep(0.1)
try:
    status = urllib.request.urlopen(sys.argv[2], timeout=30).status
except urllib.error.HTTPError as error:
    status = error.code
print(status, "weight", seen["weight"], "agent", seen["agent_status"])
END

port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# try WEIGHT PERCENT: what a client is answered
try() {
    python3 server.py "$2" >ports &
    pids="$pids $!"
    until test -s ports; do sleep 0.1; done
    read -r web agent <ports
    front=$(port)
    cat >haproxy.cfg <<END
global
    stats socket $folder/stats level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend all
    bind 127.0.0.1:$front
    default_backend servers
backend servers
    server one 127.0.0.1:$web $1 check agent-check agent-port $agent agent-inter 200
END
    "$haproxy" -f haproxy.cfg >haproxy.log 2>&1 &
    pids="$pids $!"
    python3 ask.py "$folder/stats" "http://127.0.0.1:$front/"
    kill $pids
    wait $pids 2>/dev/null || true
    pids=
    rm -f ports
}

changed=0
tell() {
    seen=$(try "$1" "$2")
    echo "${1:-the default weight}, agent says $2%: $seen"
    case $seen in "$3"*) ;; *) echo "changed: expected $3"; changed=1 ;; esac
}
tell "" 100 "200 weight 1"
tell "" 99 "503 weight 0"
tell "" 67 "503 weight 0"
tell "weight 100" 67 "200 weight 67"
exit $changed
# Seen: HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/
#       the default weight, agent says 100%: 200 weight 1 agent L7OK
#       the default weight, agent says 99%: 503 weight 0 agent L7OK
#       the default weight, agent says 67%: 503 weight 0 agent L7OK
#       weight 100, agent says 67%: 200 weight 67 agent L7OK
