"""The least of an MCP server: one tool, that keeps what it is told."""

import json
import os
import sys
import time

kept = []
TOOL = {
    "name": "keep",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}

for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message or method is None:
        continue
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "tools", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": [TOOL]}
    elif method == "tools/call":
        if params["arguments"].get("slow"):
            time.sleep(0.5)
        kept.append(params["arguments"]["text"])
        found = {"pid": os.getpid(), "kept": kept}
        result = {
            "content": [{"type": "text", "text": json.dumps(found)}],
            "structuredContent": found,
        }
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
