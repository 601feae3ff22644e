"""Tests of `fedmem/estimation/refusals.py`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.coin_law import CoinLaw
from fedmem.errors import ComponentError
from fedmem.estimation.refusals import require_readable
from fedmem.estimators.audit import Audit
from fedmem.estimators.data_value import DataValue
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_audit

AUDIT = make_audit(["a"] * 4, [0] * 4, coins(8, 4, np.random.default_rng(0)))


def test_estimators_that_suit_the_coins_pass() -> None:
    require_readable(AUDIT, [Memorisation(), DataValue(), Audit()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coin_law": CoinLaw(law="owen")}, r"estimators\[1\].*supports random inclusion by balanced, rate, and not"),
        ({"coin_group": np.zeros(4, np.int64)}, r"estimators\[2\].*drawn alone, but examples of a are in or out"),
        ({"is_in": AUDIT.is_in[:1]}, r"estimators\[0\].*needs at least 4 runs, but runs is 1"),
    ],
)
def test_others_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError) as error:
        require_readable(replace(AUDIT, **change), [DataValue(), Memorisation(), Audit()])
    assert re.search(message, str(error.value))
