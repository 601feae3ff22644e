"""Injections that are made against others, in a federation and on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.federation import digest
from fedmem.errors import ComponentError
from fedmem.federation.aims import plan_aimed, positions_aimed_at
from fedmem.federation.build import build
from fedmem.injections.privacy_poison import PrivacyPoison
from fedmem.injections.typical import Typical
from fedmem.results.tables import read_audit
from fedmem.results.write import write_audit
from tests.injections.atypical_helpers import BASE, SPACE, plan
from tests.narrowing import present
from tests.tiny import TINY, tiny

POISON: dict[str, Any] = {"kind": "privacy_poison", "aims_at": "mislabelled", "per_client": 4, "copies": 2}


def poisoned(*more: dict[str, Any], **changes: Any) -> Any:
    return tiny(injections=[*TINY["injections"], POISON, *more], **changes)


@pytest.mark.parametrize("changes", [{}, {"exclusion": "remove"}, {"twins": 2, "runs": 8}], ids=str)
def test_poison_is_placed_at_its_targets(changes: dict[str, Any]) -> None:
    federation = build(poisoned(**changes))
    audit = federation.audit
    aims = present(audit.aims_at)
    rows = np.flatnonzero(aims >= 0)
    assert rows.tolist() == list(range(30, 34))
    assert set(audit.kind[aims[rows]]) == {"mislabelled"}
    np.testing.assert_array_equal(audit.examples.inputs[rows], audit.examples.inputs[aims[rows]])
    assert (audit.examples.targets[rows] != audit.examples.targets[aims[rows]]).all()
    assert (audit.owner[rows] == 0).all()
    assert (audit.owner[aims[rows]] != 0).all()
    for run in range(audit.runs):
        held = federation.rows(run, 0, 1)
        trained = [int((held == federation.audit_start + row).sum()) for row in rows]
        assert trained == (2 * audit.is_in[run, rows]).tolist()


def test_coins_of_poison_leave_those_of_others_as_they_are() -> None:
    with_it, without = build(poisoned()).audit, build(tiny()).audit
    np.testing.assert_array_equal(with_it.is_in[:, :30], without.is_in)
    assert without.aims_at is None
    assert (with_it.is_in.sum(0) == 2).all()
    ways = {
        (t, p)
        for seed in range(6)
        for audit in [build(poisoned(seed=seed)).audit]
        for row in range(30, 34)
        for t, p in audit.is_in[:, [int(present(audit.aims_at)[row]), row]].tolist()
    }
    assert len(ways) == 4, "all combinations of target and poison occur"


def test_aims_count_in_digests_and_are_stored(tmp_path: Path) -> None:
    whole = build(poisoned())
    assert digest(replace(whole, audit=replace(whole.audit, aims_at=None))) != digest(whole)
    write_audit(tmp_path, whole.audit, {}, None)
    np.testing.assert_array_equal(present(read_audit(tmp_path / "audit.parquet").aims_at), present(whole.audit.aims_at))
    unaimed = replace(whole.audit, aims_at=None)
    (tmp_path / "without").mkdir()
    write_audit(tmp_path / "without", unaimed, {}, None)
    assert read_audit(tmp_path / "without" / "audit.parquet").aims_at is None


def test_poison_of_clients_that_own_rows() -> None:
    owned = {"partition": {"kind": "natural"}, "dataset": {"kind": "synthetic", "rows": 900, "test": 50, "groups": 5}}
    audit = build(poisoned({**POISON, "aims_at": "typical", "clients": [1], "label": "second"}, **owned)).audit
    aims = present(audit.aims_at)
    assert set(audit.kind[aims[34:]]) == {"typical"}
    assert (audit.owner[aims[34:]] != 1).all()
    held = [{"kind": "existing", "per_client": 2}, {**POISON, "aims_at": "existing"}]
    with pytest.raises(ComponentError, match=r"existing takes rows that clients hold.*another partition") as error:
        build(tiny(injections=held, **owned))
    assert error.value.path == "injections[1].aims_at"
    assert set(build(tiny(injections=held)).audit.kind) == {"existing", "privacy_poison"}


def test_positions_are_those_of_the_audit_set() -> None:
    targets = plan(Typical(per_client=2))
    aimed = replace(plan(Typical(per_client=1)), aims_at=np.array([5, -1, 0]))
    injections = (Typical(label="first"), Typical(), PrivacyPoison(aims_at="typical"))
    found = positions_aimed_at(injections, [targets, targets, aimed])
    assert present(found).tolist() == [-1] * 12 + [11, -1, 6]
    assert positions_aimed_at(injections[:2], [targets, targets]) is None


@pytest.mark.parametrize("aims", [None, np.array([0, 1]), np.array([0, 1, 6]), np.array([0, 1, -2])], ids=str)
def test_a_plan_with_wrong_aims_is_refused(aims: Any) -> None:
    class Wrong(PrivacyPoison):
        def plan_against(self, *arguments: Any, **named: Any) -> InjectionPlan:
            return replace(plan(Typical(per_client=1)), aims_at=aims)

    with pytest.raises(ComponentError, match="its target in `aims_at`, from -1 to 5"):
        plan_aimed(Wrong(), plan(Typical(per_client=2)), BASE, None, SPACE, np.random.default_rng(0))  # type: ignore[arg-type]
