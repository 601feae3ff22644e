"""Examples that are in or out together, in a federation, in training and on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import fedmem
from fedmem.contracts.federation import digest
from fedmem.contracts.injection import Included, injection_declaration
from fedmem.errors import ComponentError
from fedmem.execution.plan import plan
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.federation.coin_groups import coin_groups
from fedmem.injections.typical import Typical
from fedmem.results.read import read_bank
from fedmem.scenario.catalogue import dump
from tests.execution.pilot_helpers import GREEDY
from tests.narrowing import present
from tests.tiny import TINY, tiny


def injections(included: str, **changes: Any) -> list[dict[str, Any]]:
    """Those of the tiny scenario, the second of which draws in this way."""
    first, second, third = TINY["injections"]
    return [first, {**second, "included": included, **changes}, third]


@dataclass(frozen=True, kw_only=True)
class DrawsTogether(Typical):
    """An injection of somebody else, which declares its draws and has no field for them."""

    included: ClassVar[Included] = "together"  # type: ignore[misc]


@pytest.mark.parametrize(("included", "draws"), [("together", 1), ("by_client", 5)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"twins": 2, "runs": 8},
        {"leave_out": {"clients": "all"}},
        {"exclusion": "remove"},
        GREEDY,
        {"central": "shuffled", "sampler": {"kind": "everyone"}, "observe": {"every": 2, "levels": ["global"]}},
    ],
    ids=["plain", "twins", "clients left out", "outs missing", "pilot", "central"],
)
def test_examples_of_a_draw_are_in_or_out_together(included: str, draws: int, changes: dict[str, Any]) -> None:
    apart, together = (build(tiny(injections=injections(how), **changes)) for how in ("each", included))
    whole = present(together.pilot) if "roster" in changes else together
    for audit in (together.audit, whole.audit):
        rows = np.flatnonzero(audit.kind == "mislabelled")
        assert audit.num_coin_groups(rows) == draws
        assert len(rows) == 10
        for group in np.unique(audit.coin_groups[rows]):
            members = audit.is_in[:, audit.coin_groups == group]
            assert (members == members[:, :1]).all()
    audit, before = together.audit, apart.audit
    assert before.coin_group is None
    assert (audit.is_in.sum(0) == audit.runs / 2).all()
    others = audit.kind != "mislabelled"
    np.testing.assert_array_equal(audit.is_in[:, others], before.is_in[:, others])
    np.testing.assert_array_equal(audit.examples.inputs, before.examples.inputs)
    if included == "by_client" and "central" not in changes:
        assert len(set(zip(audit.owner[~others].tolist(), audit.coin_groups[~others].tolist(), strict=True))) == 5


def test_draws_of_groups_are_fair_and_independent() -> None:
    audits = [build(tiny(seed=seed, injections=injections("by_client"))).audit for seed in range(6)]
    firsts = np.concatenate([audit.is_in[:, np.unique(present(audit.coin_group)[10:20])] for audit in audits], axis=1)
    ways = {tuple(column) for column in firsts.T.tolist()}
    assert len(ways) == 6, "2 of 4 runs"
    pairs = [(one.is_in[:, 10] == one.is_in[:, 12]).mean() for one in audits]
    assert abs(np.mean(pairs) - 0.5) < 4 * 0.29 / np.sqrt(6)


def test_defaults_keep_ids_and_digests() -> None:
    assert tiny(injections=injections("each")).id == tiny().id
    assert tiny(injections=injections("together")).id != tiny().id
    assert "included" not in dump(Typical(), for_id=True)
    assert dump(Typical())["included"] == "each"
    whole = build(tiny())
    assert digest(replace(whole, audit=replace(whole.audit, coin_group=np.zeros(30, np.int64)))) != digest(whole)
    single = build(tiny(injections=injections("by_client", per_client=1)))
    assert single.audit.coin_group is None, "one example of each client is drawn alone"
    assert digest(build(tiny())) == "3874cdb5c2d0184d85e8de5620b03ef1", "that of before there were groups"


def test_an_injection_of_others_declares_its_draws() -> None:
    assert injection_declaration(object()).included == "each"
    assert injection_declaration(DrawsTogether()).included == "together"
    federation = build(tiny().model_copy(update={"injections": (DrawsTogether(per_client=2),)}))
    assert federation.audit.num_coin_groups(np.arange(10)) == 1


def test_examples_without_owner_are_in_no_client() -> None:
    scenario = tiny(injections=[{"kind": "typical", "included": "by_client", "per_client": 2}])
    audit = build(scenario).audit
    part = type("Part", (), {"examples": audit.examples, "owner": np.full(10, -1, np.int32)})()
    with pytest.raises(ComponentError, match=r"included.*without an owning client; write each or together"):
        coin_groups(scenario.injections, [part])


@pytest.mark.slow
def test_a_run_with_groups_is_measured_again_alike(tmp_path: Path) -> None:
    scenario = tiny(
        runs=8,
        rounds=2,
        bootstrap=100,
        injections=injections("together", per_client=3),
        estimators=[{"kind": "memorisation"}, {"kind": "membership", "attack": {"kind": "loss_threshold"}}],
    )
    folder = run(scenario, out=tmp_path)
    bank = read_bank(folder)
    np.testing.assert_array_equal(present(bank.audit.coin_group), present(build(scenario).audit.coin_group))
    stored = fedmem.read(folder)
    again = fedmem.read(fedmem.measure(folder))
    assert again.values("memorisation").equals(stored.values("memorisation"))
    assert again.values("auc").equals(stored.values("auc"))
    rows = stored.rows()
    p = {row.reading.subject: row.reading.n for row in rows if row.reading.metric == "memorisation.p"}
    assert p["mislabelled"] == 69, "4 of 8 runs in 70 ways"
    assert p["typical"] > 69
    rates = {row.reading.subject for row in rows if row.reading.metric == "tpr"}
    assert rates == {"random_pattern", "typical"}
    (warning,) = [text for text in stored.manifest["warnings"] if "together" in text]
    assert warning.startswith("mislabelled: 15 examples are in or out together in 1 draw of random inclusion")
    assert stored.audit.groupby("kind")["draw"].nunique().to_dict() == {
        "mislabelled": 1,
        "random_pattern": 10,
        "typical": 10,
    }
    summary = stored.summary()
    assert any("Examples of mislabelled are in or out together in 1 draw;" in text for text in summary.limits)
    assert "0.35 for a mean of 1 draws" not in summary.power


def test_a_plan_counts_draws() -> None:
    kinds = {how: plan(s := tiny(injections=injections(how)), build(s)).precision[1] for how in ("each", "together")}
    each, together = kinds["each"], kinds["together"]
    assert (each.draws, together.draws, together.examples) == (8, 1, 8)
    assert together.of_mean == pytest.approx(together.of_one), "one draw is one example"
    assert each.of_mean == pytest.approx(each.of_one / np.sqrt(8))
    assert np.isnan(together.fpr)
    assert not np.isnan(each.fpr)
