"""The JSON of a run: what was measured, round by round, and nothing derived from it.

    {"schema": 1, "meta": {...}, "sections": {SECTION: {ROW: {"about": str, "rounds": [...]}}}}

A row of programs that have versions tells them ("version"); one that cannot be had on a machine has
"unavailable": why. A round is a record of figures, or {"round": N, "failed": why}. Medians and
ratios are computed by whoever reads the file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1


class Results:
    """A run in progress or read back; saved after every unit, so an interrupted run is not lost."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @classmethod
    def new(cls, meta: dict[str, object]) -> Results:
        return cls({"schema": SCHEMA, "meta": meta, "sections": {}})

    @classmethod
    def load(cls, path: Path) -> Results:
        data = json.loads(path.read_text())
        if data.get("schema") != SCHEMA:
            raise ValueError(f"{path.name}: schema {data.get('schema')} instead of {SCHEMA}")
        return cls(data)

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.data["meta"]
        return meta

    def section(self, name: str) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = self.data["sections"].get(name, {})
        return rows

    def row(self, section: str, name: str, about: str) -> dict[str, Any]:
        """The row of that name, made where there is none. Rows keep the order they came in."""
        rows = self.data["sections"].setdefault(section, {})
        row: dict[str, Any] = rows.setdefault(name, {"about": about, "rounds": []})
        return row

    def retry_unavailable(self) -> None:
        """Forget what could not be had: it may have been built since."""
        for rows in self.data["sections"].values():
            for row in rows.values():
                row.pop("unavailable", None)

    def failed(self) -> list[str]:
        return [
            f"{section}/{name}"
            for section, rows in self.data["sections"].items()
            for name, row in rows.items()
            if failure(row)
        ]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(part, path)


def failure(row: dict[str, Any]) -> str:
    """Why a row did not hold in one of its rounds, or an empty string."""
    return next((record["failed"] for record in row["rounds"] if "failed" in record), "")


def by_round(row: dict[str, Any], figure: str) -> dict[int, float]:
    """One figure of a row, by round; empty for a row that failed or has no such figure."""
    if failure(row):
        return {}
    return {record["round"]: record[figure] for record in row["rounds"] if figure in record}
