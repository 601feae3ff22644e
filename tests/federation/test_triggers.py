"""Rows with the trigger of a backdoor, in a federation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmem.contracts.data import Space
from fedmem.contracts.federation import digest
from fedmem.errors import FedmemError
from fedmem.federation.build import build
from fedmem.federation.triggers import triggered_rows
from fedmem.injections.backdoor import Backdoor
from tests.injections.atypical_helpers import ROWS, SPACE
from tests.tiny import TINY, tiny


def test_rows_are_test_rows_of_other_classes() -> None:
    whole = build(tiny(injections=[*TINY["injections"], {"kind": "backdoor", "target": 1, "per_client": 3}]))
    (rows,) = whole.triggers
    others = whole.test.inputs[whole.test.targets != 1]
    assert (rows.kind, rows.target) == ("backdoor", 1)
    np.testing.assert_array_equal(rows.clean, others)
    assert (rows.triggered != rows.clean).any(axis=tuple(range(1, rows.clean.ndim))).mean() > 0.9
    of_kind = whole.audit.kind == "backdoor"
    assert whole.audit.num_coin_groups(of_kind) == 1
    assert build(tiny()).triggers == ()
    assert digest(whole) != digest(replace(whole, triggers=()))


def test_a_trigger_that_changes_shapes_is_refused() -> None:
    class Wrong(Backdoor):
        def with_trigger(self, inputs: NDArray[np.float32], space: Space) -> Any:
            return inputs[:, 0]

    with pytest.raises(FedmemError, match=r"should return float32 of shape"):
        triggered_rows((Wrong(),), ROWS, SPACE)
