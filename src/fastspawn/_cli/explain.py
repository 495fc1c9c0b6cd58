"""``fastspawn explain``: what ``python -m fastspawn.snapshot explain`` is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fastspawn import snapshot


def main(args: Sequence[str]) -> int:
    """The exit status."""
    return snapshot.explain(parser(), args, "fastspawn explain")


def parser() -> argparse.ArgumentParser:
    """For completion and the manual page, too."""
    made = argparse.ArgumentParser(
        prog="fastspawn explain",
        usage="fastspawn explain [options] [--] CMD [ARG...]",
        description="How far a program runs alike, what it came from, and what forks of it save.",
    )
    snapshot.add_options(made)
    return made
