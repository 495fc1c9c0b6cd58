"""Makes a suite's swap in the interpreters that its cases start, too: they inherit PYTHONPATH."""

import importlib.util
import os
from pathlib import Path

if swap := os.environ.get("FASTSPAWN_TEST_SWAP"):
    spec = importlib.util.spec_from_file_location(
        "fastspawn_test_swaps", Path(__file__).parents[1] / "swaps.py"
    )
    assert spec is not None
    assert spec.loader is not None
    swaps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(swaps)
    getattr(swaps, swap)()
