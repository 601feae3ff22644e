"""Tests of `fedmem/scenario/check_measuring.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.measure import Measure, differing_facts
from fedmem.estimators.membership import Membership
from fedmem.reporting.measures import WRITTEN, shipped_by
from fedmem.scenario.check_measuring import _attack_series
from tests.scenario.declared_helpers import COMPARING, KINDS, LEFT_OUT, refusal
from tests.tiny import tiny


@pytest.mark.parametrize("probe", COMPARING, ids=KINDS)
def test_comparing_probe_needs_masked_copies(probe: dict[str, Any]) -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    ((path, message),) = refusal(injections=kept, probes=[probe])
    assert path == "injections[0].unmasked"
    assert f"the probe {probe['kind']} compares" in message
    assert "write unmasked: 0" in message
    assert not refusal(injections=[kept[0] | {"unmasked": 0}], probes=[probe])


@pytest.mark.parametrize("estimator", [{"kind": "audit"}, {"kind": "tests.declaring:Guessing"}])
def test_comparing_estimator_needs_masked_copies(estimator: dict[str, Any]) -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    ((path, message),) = refusal(injections=kept, estimators=[estimator])
    assert path == "injections[0].unmasked"
    assert f"the estimator {estimator['kind']} compares" in message


def test_components_without_comparison_are_accepted() -> None:
    kept = [{"kind": "typical", "per_client": 2, "copies": 3, "unmasked": 2}]
    greedy = {"kind": "power_of_choice", "size": 3, "candidates": 4}
    silent = [{"kind": "utility"}, {"kind": "tests.declaring:Silent"}]
    assert not refusal(injections=kept, probes=silent, sampler=greedy, roster="per_run")
    # what the last copy adds is what its memorisation is
    assert not refusal(injections=kept, estimators=[{"kind": "memorisation"}])


@pytest.mark.parametrize("kind", ["client_influence", "tests.declaring:OverClients"])
def test_estimator_over_clients_needs_leave_out(kind: str) -> None:
    estimators = [{"kind": kind}]
    assert not refusal(**LEFT_OUT, estimators=estimators)
    ((path, message),) = refusal(estimators=estimators)
    assert path == "estimators[0]"
    assert f"{kind} compares runs with and without a client" in message
    model = {"model": {"kind": "mlp", "hidden": [8]}, "client": {"kind": "fedper"}}
    assert any(
        f"{kind} compares one aggregate for all" in m for _, m in refusal(**LEFT_OUT, **model, estimators=estimators)
    )


@pytest.mark.parametrize("kind", ["exposure", "exposure_skewnormal", "tests.declaring:Ranking"])
def test_an_estimator_that_ranks_canaries_needs_some(kind: str) -> None:
    found = refusal(injections=[{"kind": "typical", "per_client": 2}], estimators=[{"kind": kind}])
    assert any(path == "estimators[0]" and f"{kind} ranks canaries" in message for path, message in found)


@pytest.mark.parametrize("estimators", [["memorisation", "tests.declaring:OtherFacts"], ["tests.declaring:OtherFacts"]])
def test_one_measure_with_two_units_is_refused(estimators: list[str]) -> None:
    found = refusal(**LEFT_OUT, estimators=[{"kind": kind} for kind in estimators])
    ((path, message),) = [(path, message) for path, message in found if "different facts" in message]
    assert path == f"estimators[{len(estimators) - 1}]"
    assert "estimator memorisation and estimator tests.declaring:OtherFacts" in message
    assert "of memorisation (unit 'share' and 'bits'; range (-1.0, 1.0) and (-inf, inf); direction 'higher" in message


def test_components_of_the_catalogue_agree_about_their_measures() -> None:
    declared: dict[str, Measure] = {measure.name: measure for measure in WRITTEN}
    for measures in shipped_by().values():
        for name, measure in measures.items():
            assert not differing_facts(declared.setdefault(name, measure), measure), name


@pytest.mark.parametrize(
    ("observe", "is_even"),
    [
        ({"every": 1}, True),
        ({"every": 2}, True),
        ({"every": 4}, False),
        ({"every": 1, "rounds": [-2]}, True),
        ({}, False),
    ],
)
def test_events_between_rounds_need_even_rounds(observe: dict[str, Any], is_even: bool) -> None:
    found = refusal(rounds=10, observe=observe, estimators=[{"kind": "trajectories"}])
    assert [path for path, _ in found] == ([] if is_even else ["estimators[0]"])
    assert all("write observe: {every: 1}" in message for _, message in found)
    assert not refusal(rounds=10, observe=observe, estimators=[{"kind": "memorisation"}])


def reading(*names: str) -> list[dict[str, Any]]:
    attack = {"kind": "tests.reading_attack:ReadsSignals", "reads_signals": list(names)}
    return [{"kind": "membership", "attack": attack}]


def test_an_attack_needs_the_signals_that_it_reads() -> None:
    ((path, message),) = refusal(estimators=reading("el2n"))
    assert path == "estimators[0].attack"
    assert "reads the signal el2n, but signals has none of it; add {kind: el2n} to signals" in message
    assert "{kind: entropy}" in refusal(estimators=reading("modified_entropy"))[0][1]
    assert "add a signal of your own" in refusal(estimators=reading("gini"))[0][1]
    assert len(refusal(estimators=reading("el2n", "entropy"), signals=[{"kind": "el2n"}])) == 1
    assert not refusal(estimators=reading("el2n"), signals=[{"kind": "el2n"}])


def test_an_attack_needs_its_signals_at_every_observed_round() -> None:
    observe = {"every": 2, "levels": ["local", "global"]}
    signals: list[dict[str, Any]] = [{"kind": "entropy"}, {"kind": "el2n", "every": 4}]
    ((path, message),) = refusal(rounds=6, observe=observe, estimators=reading("el2n"), signals=signals)
    assert path == "signals[1].every"
    assert "every: 4 does not read at the observed round 2; leave every out" in message
    signals[1]["every"] = 2
    assert not refusal(rounds=6, observe=observe, estimators=reading("el2n"), signals=signals)


COSINE = {"kind": "membership", "attack": {"kind": "fedmia", "signal": "update_alignment"}}


def test_an_attack_over_rounds_needs_its_signals() -> None:
    ((path, message),) = refusal(estimators=[COSINE])
    assert path == "estimators[0].attack"
    assert "reads the signal update_alignment, but signals has none of it" in message
    assert "{kind: update_alignment}" in message
    assert not refusal(estimators=[COSINE], signals=[{"kind": "update_alignment"}])
    ((path, message),) = refusal(estimators=[COSINE], signals=[{"kind": "update_alignment", "levels": ["global"]}])
    assert path == "estimators[0].attack"
    assert "add local to the levels of its signal" in message


def test_an_attack_that_reads_other_clients_needs_them() -> None:
    estimators = [{"kind": "membership", "attack": {"kind": "fedmia"}}]
    assert not refusal(estimators=estimators)
    ((path, _),) = refusal(estimators=estimators, observe={"every": 2, "levels": ["global"]})
    assert path == "observe.levels"
    ((path, _),) = refusal(estimators=estimators, roster="per_run")
    assert path == "roster"
    ((path, message),) = refusal(estimators=estimators, sampler={"kind": "uniform", "size": 2})
    assert path == "estimators[0].attack"
    assert "fewer than three" in message


@dataclass(frozen=True, kw_only=True)
class OverRounds:
    """An attack over rounds that reads one quantity."""

    knows: ClassVar[str] = "series"
    reads_coins: ClassVar[bool] = False
    reads_series: tuple[str, ...]

    def scores(self, signals: Signals) -> FloatArray:
        return signals.margin


@pytest.mark.parametrize(
    ("name", "refused"), [("probability.3", 0), ("probability", 1), ("probability.x", 1), ("entropy.3", 1), ("loss", 0)]
)
def test_attack_over_rounds_may_read_a_single_class(name: str, refused: int) -> None:
    scenario = tiny(signals=[{"kind": "probabilities"}, {"kind": "entropy"}, {"kind": "logits"}])
    estimator = Membership(attack=OverRounds(reads_series=(name,)))
    rest = scenario.observe, scenario.roster, scenario.sampler, scenario.clients
    assert len(list(_attack_series([estimator], scenario.signals, *rest))) == refused
    of_tests = Membership(attack=OverRounds(reads_series=("logit.0",)))
    assert list(_attack_series([of_tests], scenario.signals, *rest)), "logits are not read on audit examples"
