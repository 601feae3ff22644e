"""What an attack on an update is granted reaches it, and nothing else does; a table's columns reach the federation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.contracts.attack import GRANTS
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
