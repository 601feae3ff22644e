"""However the runs of a bank are divided, what was read of the parts becomes one and the same whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.evidence import Evidence, ReferenceEvidence, TrainedBank
from fedmem.errors import RunError
from fedmem.execution.bank import gather, simulate
from fedmem.execution.join_shards import join
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from tests.tiny import tiny

PROBES = [
    {"kind": "utility"},
    {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 3}, "victims": 1, "rounds": [2]},
    {"kind": "client_gap", "every": 4},
]


def same(one: TrainedBank, other: TrainedBank) -> None:
    """To the last bit, and in the same order."""
    assert [repr(m) for m in one.measurements] == [repr(m) for m in other.measurements]
    assert one.bank.participation == other.bank.participation
    blocks: list[tuple[Sequence[Evidence | ReferenceEvidence], Sequence[Evidence | ReferenceEvidence]]]
    blocks = [(one.bank.evidence, other.bank.evidence), (one.bank.references, other.bank.references)]
    for mine, others in blocks:
        assert len(mine) == len(others)
        for a, b in zip(mine, others, strict=True):
            for name, value in vars(a).items():
                np.testing.assert_array_equal(value, getattr(b, name), err_msg=f"{a.round} {a.level} {name}")
    assert list(one.reconstructions) == list(other.reconstructions)
    for name, array in one.reconstructions.items():
        np.testing.assert_array_equal(array, other.reconstructions[name])
    for params, theirs in zip(one.params, other.params, strict=True):
        assert all((params[name] == theirs[name]).all() for name in theirs)


def whole_and_parts(scenario: Scenario, *shards: list[int]) -> tuple[TrainedBank, TrainedBank]:
    federation = build(scenario)
    parts = [gather(scenario, federation, runs=shard) for shard in shards]
    return simulate(scenario, federation), join(parts, scenario.probes, scenario.seed)


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_parts_are_the_whole(server: str) -> None:
    scenario = tiny(probes=PROBES, speed={"server": server})
    whole, parts = whole_and_parts(scenario, [0], [1, 2], [3])
    same(whole, parts)
    assert whole.reconstructions
    means = [m for m in whole.measurements if m.run is None]
    assert {m.source for m in means} == {"utility", "leakage", "client_gap"}
    assert list(whole.measurements) == [*(m for m in whole.measurements if m.run is not None), *means]


def test_shards_without_local_models_join_to_the_whole() -> None:
    """Each run draws its own cohorts, often empty ones, so that some shards have no local models in a round."""
    changes: dict[str, Any] = {
        "roster": "per_run",
        "sampler": {"kind": "poisson", "rate": 0.1},
        "observe": {"every": 1},
    }
    scenario = tiny(probes=PROBES[:1], **changes)
    whole, parts = whole_and_parts(scenario, [0], [1], [2, 3])
    same(whole, parts)
    alone = gather(scenario, build(scenario), runs=[0]).bank.evidence
    assert len(alone) < len(whole.bank.evidence)


@pytest.mark.slow
@pytest.mark.nightly
def test_parts_are_the_whole_with_convolutions() -> None:
    scenario = tiny(probes=PROBES[:2], dataset={"kind": "digits"}, model={"kind": "small_cnn"}, rounds=2)
    same(*whole_and_parts(scenario, [0, 1, 2], [3]))


def test_arrays_of_several_runs_under_one_name_are_refused() -> None:
    scenario = tiny(rounds=2)
    part = gather(scenario, build(scenario), runs=[0])
    kept = replace(part, reconstructions={"mine/picture": np.zeros(1)})
    with pytest.raises(RunError, match=r"'mine/picture'.* Put the number of the run into the name"):
        join([kept, kept], (), 0)


def test_parts_from_different_devices_are_refused() -> None:
    scenario = tiny()
    federation = build(scenario)
    parts = [gather(scenario, federation, runs=[run]) for run in (0, 1)]
    for other in (replace(parts[1], device="cuda", card="A100"), replace(parts[1], card="A100")):
        with pytest.raises(RunError, match=r"different devices: cpu, .*\(A100\)"):
            join([parts[0], other], (), scenario.seed)
