"""``fastspawn doctor``: the words."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastspawn._stdout import printing
from fastspawn._trial import Outcome

from . import machine
from .features import ALL, Feature, advice, try_all
from .strategies import Answer, try_each

_TITLES: Final = {
    "direct": "direct",
    "warm": "warm",
    "pool": "pool",
    "snapshot": "snapshot (at main)",
    "effect": "snapshot at the first effect",
    "checkpoint": "snapshot at a checkpoint",
    "reset": "reset",
}

_EPILOG: Final = """\
Whether something works is found by trying. Strategies: direct, warm, pool, snapshot (at main),
effect and checkpoint (snapshot with that --snapshot-at), reset.
Exit status: 0 if strategy direct, the default, works; with --strategy, if all of those do. Else 1.
"""


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn doctor``."""
    made = argparse.ArgumentParser(
        prog="fastspawn doctor",
        description="What this machine gives, what each strategy needs of it, and how to get what "
        "is missing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--strategy", action="append", choices=ALL, metavar="NAME",
        help="try only this one; may be repeated",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print an object")
    return made


def main(args: Sequence[str] | None = None) -> int:
    """The exit status."""
    with printing("fastspawn doctor"):
        options = parser().parse_args(args)
        names = [name for name in ALL if name in (options.strategy or ALL)]
        # Trials fork: before the engine has threads.
        group, into_group = machine.try_cgroup() if sys.platform == "linux" else ("", Outcome())
        features = try_all()
        gone = [feature for feature, outcome in features.values() if not outcome.works]
        answers = try_each(names, {name for each in gone for name in each.needed})
        if options.json:
            json.dump(_as_data(features, answers, group, into_group), sys.stdout, indent=2)
            print()
        else:
            _Page().show(features, answers, group, into_group)
    wanted = options.strategy or ["direct"]
    return 0 if all(answers[name].works for name in wanted) else 1


def _missing(
    name: str, answer: Answer, features: Mapping[str, tuple[Feature, Outcome]]
) -> list[tuple[Feature, Outcome]]:
    """What does not work here of all that the strategy needs or would be better with."""
    found = [each for each in features.values() if not each[1].works]
    return [
        (feature, outcome)
        for feature, outcome in found
        if (name in feature.needed and not answer.works) or name in feature.wanted
    ]


# ---- for programs ----


def _as_data(
    features: Mapping[str, tuple[Feature, Outcome]],
    answers: Mapping[str, Answer],
    group: str,
    into_group: Outcome,
) -> dict[str, Any]:
    return {
        **machine.versions(),
        "surroundings": machine.surroundings(),
        "limits": machine.limits(),
        "cgroup": {"path": group, "works": into_group.works, "why": into_group.why},
        "extras": {
            name: {"version": version, "for": purpose, "install": install}
            for name, (version, purpose, install) in machine.extras().items()
        },
        "features": {
            name: {
                "works": outcome.works,
                "errno": outcome.error,
                "why": outcome.why,
                "needed_by": list(feature.needed),
                "wanted_by": list(feature.wanted),
                "advice": None if outcome.works else advice(feature, outcome),
            }
            for name, (feature, outcome) in features.items()
        },
        "strategies": {
            name: {
                "works": answer.works,
                "how" if answer.works else "why": answer.text,
                "missing": [each.name for each, _ in _missing(name, answer, features)],
            }
            for name, answer in answers.items()
        },
    }


# ---- for people ----


def _coloured() -> bool:
    """no-color.org, and as Python's own programs: force-color.org, python.org/3/using/cmdline."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class _Page:
    def __init__(self) -> None:
        self._width = max(60, min(100, shutil.get_terminal_size((100, 24)).columns))
        self._coloured = _coloured()

    def _say(self, text: str = "") -> None:
        print(text)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    def _title(self, text: str) -> None:
        self._say()
        self._say(self._paint(text, "1"))

    def _line(self, works: bool, name: str, text: str, *, matters: bool = True) -> None:
        mark = "ok" if works else "no" if matters else "--"
        colour = "32" if works else "31" if matters else "33"
        lines = textwrap.wrap(text, self._width - 36) or [""]
        self._say(f"  {self._paint(mark, colour)}  {name:<29} {lines[0]}".rstrip())
        for line in lines[1:]:
            self._say(f"{'':36}{line}")

    def _facts(self, facts: Mapping[str, str]) -> None:
        for name, value in facts.items():
            self._say(f"      {name:<29} {value}")

    def show(
        self,
        features: Mapping[str, tuple[Feature, Outcome]],
        answers: Mapping[str, Answer],
        group: str,
        into_group: Outcome,
    ) -> None:
        self._facts(machine.versions())
        self._title("strategies")
        for name, answer in answers.items():
            self._strategy(name, answer, features)
        self._title("kernel")
        for name, (feature, outcome) in features.items():
            matters = bool(feature.needed)
            self._line(outcome.works, name, _what(feature, outcome), matters=matters)
        if group:
            text = group if into_group.works else f"{into_group.why} ({group})"
            self._line(into_group.works, "cgroup of its own (--cgroup)", text, matters=False)
        self._title("surroundings")
        self._facts({**machine.surroundings(), **machine.limits()})
        self._title("optional")
        for name, (version, purpose, install) in machine.extras().items():
            text = f"{version or 'not installed'}: {purpose}"
            if version is None:
                text += f" ({install})"
            self._line(version is not None, name, text, matters=False)

    def _strategy(
        self, name: str, answer: Answer, features: Mapping[str, tuple[Feature, Outcome]]
    ) -> None:
        self._line(answer.works, _TITLES[name], answer.text)
        for feature, outcome in _missing(name, answer, features):
            what = "needs" if name in feature.needed and not answer.works else "without"
            then = "" if what == "needs" or not feature.without else f": {feature.without}"
            text = f"{what} {feature.name}{then}. {_sentence(advice(feature, outcome))}"
            for line in textwrap.wrap(text, self._width - 36):
                self._say(f"{'':36}{line}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _what(feature: Feature, outcome: Outcome) -> str:
    users = "all" if set(feature.needed) == set(ALL) else ", ".join(feature.needed)
    if outcome.works:
        return f"needed by {users}" if users else f"wanted by {_users(feature.wanted)}"
    return f"{outcome.why}; " + (f"needed by {users}" if users else feature.without)


def _users(names: Sequence[str]) -> str:
    return "all" if set(names) == set(ALL) else ", ".join(names)
