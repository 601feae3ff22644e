"""What docs/poisoning.md reports of harmful rows, with another seed."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedmem
from fedmem.contracts.measurement import Reading

pytestmark = pytest.mark.slow

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "harmful.yaml"


def test_harmful_rows_are_memorised_by_owners(tmp_path: Path) -> None:
    scenario = fedmem.load_scenario(SCENARIO, ["seed=7", "runs=16"])
    rows = fedmem.read(fedmem.run(scenario, out=tmp_path)).rows()
    found: dict[tuple[str, str, str], Reading] = {
        (row.reading.metric, row.reading.labels.text("place"), row.reading.subject): row.reading
        for row in rows
        if row.round is None and not {"statistic", "contrast"} & {name for name, _ in row.reading.labels.items}
    }
    control = found["memorisation", "owner", "typical"]
    for kind in ("adversarial", "poison", "privacy_poison"):
        assert found["memorisation", "owner", kind].low > control.value
        assert found["memorisation", "owner", kind].value > found["memorisation", "", kind].value + 0.2
    harm = {kind: found["cross_influence", "owner", kind].value for kind in ("typical", "poison", "privacy_poison")}
    assert max(harm["poison"], harm["privacy_poison"]) < harm["typical"]
    assert harm["poison"] + harm["privacy_poison"] < -4
