"""What an attack on an update is granted reaches it, and nothing else does; a table's columns reach the federation."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.contracts.attack import GRANTS, Signals
from fedmem.federation.build import build
from fedmem.modalities.images import Images
from fedmem.modalities.tables import Tables
from tests.lab import digits, network, parameters, target_of
from tests.narrowing import instance
from tests.published import put_in_cache
from tests.tiny import tiny


def test_population_is_granted_only_if_declared() -> None:
    model, data = network(), digits()
    target = replace(target_of(model, parameters(model), data.take(np.arange(2))), population=data)
    for words, shown in (((), None), (("labels",), None), (("population",), data), (GRANTS, data)):
        granted = target.grant(words)
        assert granted.population is shown
        assert ("population" in granted.knows) == (shown is not None)


def test_the_federation_knows_the_columns_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("adult", tmp_path, monkeypatch, times=20)
    table = tiny(dataset={"kind": "adult", "rows": 600, "test": 40}, injections=[{"kind": "typical", "per_client": 2}])
    federation = build(table)
    assert sum(instance(federation.modality, Tables).blocks) == federation.store.inputs.shape[1] == 93
    assert build(tiny()).modality == Images()


def test_every_field_of_an_attack_says_where_its_runs_are() -> None:
    """A field without an entry would be given to an attack on some runs with all runs."""
    assert set(Signals.AXIS_OF_RUNS) == {field.name for field in fields(Signals)}
    rng = np.random.default_rng(0)
    signals = Signals(
        margin=rng.normal(size=(4, 3)),
        is_in=rng.random((4, 3)) < 0.5,
        population=rng.random((2, 4, 5)),
        model=np.array([0, 1, -1]),
        signals={"el2n": rng.random((4, 3))},
        others={"loss": [rng.random((2, 4, 3)), rng.random((5, 4, 3))]},
    )
    part = signals.take_runs(np.array([3, 1]))
    np.testing.assert_array_equal(part.margin, signals.margin[[3, 1]])
    np.testing.assert_array_equal(part.is_in, signals.is_in[[3, 1]])
    assert part.population is not None
    assert part.population.shape == (2, 2, 5)
    assert part.model is signals.model
    np.testing.assert_array_equal(part.others["loss"][1], signals.others["loss"][1][:, [3, 1]])
    np.testing.assert_array_equal(part.signals["el2n"], signals.signals["el2n"][[3, 1]])
