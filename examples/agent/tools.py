"""Carries out the tool calls of a model's answer (on standard input), and prints the results."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from fastspawn import Command, Engine, Limits

LIMITS = Limits(timeout=20.0, max_output=4096)

# Each makes a command line of what the model has said, and what is on its standard input.
TOOLS: dict[str, Callable[..., tuple[list[str], str]]] = {
    "search_notes": lambda pattern: (["grep", "-n", "--", pattern, "notes.txt"], ""),
    "count_words": lambda text: (["wc", "-w"], text),
    "affirm": lambda: (["yes"], ""),  # has no end by itself
}


def result(call: dict[str, Any], content: str, is_error: bool) -> dict[str, Any]:
    told = {"content": content, "is_error": is_error}
    return {"type": "tool_result", "tool_use_id": call["id"], **told}


async def carry_out(engine: Engine, call: dict[str, Any]) -> dict[str, Any]:
    if call["name"] not in TOOLS:
        return result(call, f"there is no tool {call['name']}", is_error=True)
    try:
        argv, text = TOOLS[call["name"]](**call["input"])
        done = await engine.run(Command(argv, limits=LIMITS), input=text.encode())
    except (AttributeError, OSError, TypeError, ValueError) as error:  # no such program or argument
        return result(call, f"{call['name']}: {error}", is_error=True)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.truncated:
        return result(call, f"{said[:4]}... (cut: too much output)", is_error=True)
    if done.timed_out:
        return result(call, f"{said}(it took too long)", is_error=True)
    return result(call, said, is_error=done.returncode != 0)


async def main() -> None:
    answer = json.load(sys.stdin)
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    async with Engine() as engine:
        results = await asyncio.gather(*(carry_out(engine, call) for call in calls))
    print(json.dumps({"role": "user", "content": results}, indent=2))


asyncio.run(main())
