"""One delivery of a GitHub webhook, by CGI."""

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys


def answer(status: str, text: str) -> None:
    print(f"Status: {status}\nContent-Type: text/plain\n\n{text.strip()}")


def signed(body: bytes) -> bool:
    secret = os.environb[b"WEBHOOK_SECRET"]
    ours = b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    theirs = os.environb.get(b"HTTP_X_HUB_SIGNATURE_256", b"")
    return hmac.compare_digest(ours, theirs)


def main() -> None:
    body = sys.stdin.buffer.read()
    if not signed(body):
        return answer("401 Unauthorized", "the signature is not ours")
    if os.environ.get("HTTP_X_GITHUB_EVENT") != "push":
        return answer("202 Accepted", "nothing to do")
    push = json.loads(body)
    commit = push.get("after", "")
    if push.get("ref") != "refs/heads/main" or not re.fullmatch("[0-9a-f]{40}", commit):
        return answer("202 Accepted", "nothing to do")
    done = subprocess.run(["./deploy.sh", commit], capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        return answer("500 Internal Server Error", "it failed: see the log")
    return answer("200 OK", done.stdout)


main()
