"""Adds up an order: a JSON list of objects with a price and a count."""

import json
import os
import sys

try:
    order = json.load(sys.stdin)
    print(sum(item["price"] * item["count"] for item in order), end="")
except (ValueError, KeyError, TypeError) as error:
    print(f"no order: {error!r}", file=sys.stderr)
    sys.exit(os.EX_DATAERR)
