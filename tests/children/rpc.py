"""A server of JSON-RPC on stdin and stdout: each request's method says what is to be done."""

import json
import os
import signal
import subprocess
import sys

held = []
asked = {}


def write(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def pid(params):
    return os.getpid()


def echo(params):
    return params


def initialize(params):
    if params.get("bad"):
        raise ValueError("no")
    if params.get("chatty"):
        write(method="hello")
    return {"protocolVersion": params.get("protocolVersion"), "pid": os.getpid()}


def say(params):
    for number in range(params["times"]):
        write(method="said", params={"number": number, "text": "x" * params.get("size", 1)})
    return "said"


def progress(params):
    for number in range(params["times"]):
        token = params["_meta"]["progressToken"]
        write(method="notifications/progress", params={"progressToken": token, "progress": number})
    return "done"


def garbage(params):
    sys.stdout.write("this is no message\n\n[1]\n")
    return "more"


def complain(params):
    print(params["text"], file=sys.stderr, flush=True)


def long(params):
    return "x" * params["size"]


def die(params):
    if params.get("signal"):
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(params.get("status", 0))


def child(params):
    """One of its group that holds nothing of its."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(["sleep", "1000"], **quiet).pid


def stubborn(params):
    """From now on it ends by KILL only."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    global stays
    stays = True
    return os.getpid()


def stop_reading(params):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": current, "result": "so be it"}) + "\n")
    sys.stdout.flush()
    while True:
        signal.pause()


stays = False
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method is None:
        write(id=asked.pop(message["id"]), result=message.get("result"))
    elif method == "release":
        for each in reversed(held):
            write(id=each, result="released")
        held.clear()
    elif "id" not in message:
        pass
    elif method == "hold":
        held.append(message["id"])
    elif method == "ask":
        asked["question"] = message["id"]
        write(id="question", method="sampling")
    elif method == "wrong":
        write(id="nobody's", result=1)
        write(id=message["id"], result="right")
    else:
        current = message["id"]
        try:
            write(id=current, result=globals()[method](message.get("params") or {}))
        except ValueError as error:
            write(id=current, error={"code": -1, "message": str(error)})
while stays:
    signal.pause()
