"""What SECURITY.md says is tested."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_threat_has_its_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = re.findall(r"^\|(.*)\|(.*)\|(.*)\|$", text, flags=re.M)
    threats = [row for row in rows if not re.fullmatch(r"[ -]*(threat|who)?[ -]*", row[0])]
    assert len(threats) > 20
    for threat, _, tests in threats:
        named = re.findall(r"`([\w.]+)::(\w+)`", tests)
        assert named, threat
        for file, name in named:
            (path,) = (ROOT / "tests").glob(f"*/{file}")
            found = re.search(rf"^ *def {name}\(", path.read_text(), flags=re.M)
            assert found, (threat, name)
