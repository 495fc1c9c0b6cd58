#!/bin/sh
# gunicorn 27.0.1: "--max-requests 1", a process for each request, answers 20 requests a second,
# whatever the machine, the application and the number of workers are.
#
# Expected: with --preload a new worker is one fork of a small process, a millisecond or two, so a
# process per request would cost that much, and more workers would hide it.
# Seen: the arbiter is the only one that forks, and it sleeps between two forks for a random time of
# up to 100 ms, so that workers do not all start at once (Arbiter.spawn_workers). 20 forks a second on
# average is all there is: 8 workers answer no more than 2. A comparison with "a process per request
# under gunicorn" measures that sleep, not the fork and not Python's start-up.
#
# Needs Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gunicorn==27.0.1
cd "$folder"

cat >app.py <<'END'
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"hi"]
END

cat >measure.py <<'END'
import http.client, os, re, statistics, subprocess, sys, time

REQUESTS = 60


def forks_per_second() -> float:
    """What this interpreter forks, ends and reaps in a second."""
    began = time.monotonic()
    for _ in range(100):
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    return 100 / (time.monotonic() - began)


def answers_per_second(workers: int) -> float:
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "--max-requests", "1",
         "--workers", str(workers), "--bind", "127.0.0.1:0", "app:app"],
        stderr=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in server.stderr
                    if (found := re.search(r"Listening at: http://127.0.0.1:(\d+)", line)))
        os.set_blocking(server.stderr.fileno(), False)
        for each in range(workers + REQUESTS):  # the first are answered by those that wait already
            if each == workers:
                began = time.monotonic()
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            client.request("GET", "/")
            assert client.getresponse().read() == b"hi"
            client.close()
            server.stderr.read()
        return REQUESTS / (time.monotonic() - began)
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


forks = forks_per_second()
print(f"forks by the same interpreter: {forks:,.0f}/s")
rates = {workers: answers_per_second(workers) for workers in (2, 8)}
for workers, rate in rates.items():
    print(f"gunicorn --preload --max-requests 1 --workers {workers}: {rate:.1f} answers/s")
if max(rates.values()) > 35:
    sys.exit("changed: the arbiter forks more than 20 times a second")
if forks < 100:
    sys.exit("this machine is too busy to tell: it forks as slowly by itself")
END

"$folder/venv/bin/python" -m gunicorn --version 2>/dev/null || "$folder/venv/bin/gunicorn" --version
"$folder/venv/bin/python" measure.py
# Seen: gunicorn (version 27.0.1)
#       forks by the same interpreter: 705/s
#       gunicorn --preload --max-requests 1 --workers 2: 17.3 answers/s
#       gunicorn --preload --max-requests 1 --workers 8: 18.8 answers/s
