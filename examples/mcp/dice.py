"""A server of the Model Context Protocol on standard input and output, with one tool."""

import json
import random
import sys

ROLL = {
    "name": "roll",
    "description": "Roll a die",
    "inputSchema": {"type": "object", "properties": {"sides": {"type": "integer", "minimum": 1}}},
}


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        server = {"name": "dice", "version": "1"}
        version = params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [ROLL]}
    if method == "tools/call":
        number = random.randint(1, params["arguments"]["sides"])
        return {"content": [{"type": "text", "text": str(number)}]}
    return {}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = answer(asked["method"], asked.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
