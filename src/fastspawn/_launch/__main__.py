"""``python [OPTIONS] .../fastspawn/_launch/__main__.py [-m] SCRIPT [ARG...]`` is
``python [OPTIONS] [-m] SCRIPT [ARG...]``, with a checkpoint where the script's imports have run.

With ``--look`` before SCRIPT it only says whether there is such a place.
"""

import sys


def _load(name: str) -> dict[str, object]:
    """One of the files here, which are not to be found by their names."""
    path = f"{__file__.rpartition('/')[0]}/{name}.py"
    names: dict[str, object] = {"__name__": f"fastspawn._launch.{name}", "__file__": path}
    exec(type(__loader__)(name, path).get_code(name), names)  # type: ignore[name-defined]
    return names


if __name__ == "__main__":
    _point = _load("point")["point"]
    _script = _load("script")
    if sys.argv[1] == "--look":
        sys.exit(_script["look"](_point))  # type: ignore[operator]
    # The script runs in this very module, all of whose names become its own, and in this frame: it
    # is the one that the end of a fork is told by.
    exec(_script["take"](globals(), _point))  # type: ignore[operator]
