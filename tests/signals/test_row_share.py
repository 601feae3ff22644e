"""Tests of `fedmem/signals/row_share.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.federation import RowColumns
from fedmem.errors import ComponentError
from fedmem.federation.compatibility import require_readable
from fedmem.signals.row_share import RowShare
from tests.signals.cohort_helpers import round_of
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_the_share_is_of_the_rows_of_run_and_round(bench: Bench) -> None:
    store = bench.federation.store
    context = bench.context(bench.transition(bench.params(), level="local", client=2, run=1, round_number=3))
    (value,) = RowShare(value="1").values(context)["row_share"][:, 0, 0]
    rows = bench.federation.rows(1, 2, 3)
    # the row of the data set may have another label than a mislabelled example
    labels = bench.federation.row_columns.columns["class"][store.ids[rows].clip(0)]
    assert value == pytest.approx(np.mean((labels == 1) & (store.ids[rows] >= 0)))
    assert 0 < value < 1


def test_an_aggregate_has_the_rows_of_its_clients(bench: Bench) -> None:
    whole = round_of(bench, {0: bench.params(1), 3: bench.params(2)}, before=bench.params())
    (value,) = RowShare().values(whole)["row_share"][:, 0, 0]
    ids = bench.federation.store.ids[np.concatenate([bench.federation.rows(0, k, 1) for k in (0, 3)])]
    assert value == pytest.approx(bench.federation.row_columns.matches("class", "0", ids).mean())
    empty = bench.context(bench.transition(bench.params()))
    assert np.isnan(RowShare().values(empty)["row_share"]).all()


@pytest.mark.parametrize(("field", "wrong"), [("column", "height"), ("value", "17")])
def test_a_wrong_column_or_value_is_refused(bench: Bench, field: str, wrong: str) -> None:
    with pytest.raises(ComponentError, match=wrong):
        RowShare(**{field: wrong}).variant_names(bench.federation)  # type: ignore[arg-type]
    scenario = tiny(signals=[{"kind": "entropy"}, {"kind": "row_share", field: wrong}])
    with pytest.raises(ComponentError) as caught:
        require_readable(scenario, bench.federation)
    assert caught.value.path == f"signals[1].{field}"


def test_sensitive_columns_are_known(bench: Bench) -> None:
    ids = bench.federation.row_columns.ids
    sex = np.where(ids % 2 == 0, "f", "m")
    federation = replace(bench.federation, row_columns=RowColumns(ids=ids, columns={"sex": sex}))
    assert RowShare(column="sex", value="f").variant_names(federation) == {"row_share": ("rows",)}
    assert federation.row_columns.matches("sex", "f", np.array([2, 3, -2])).tolist() == [True, False, False]


def test_a_window_is_that_of_the_round() -> None:
    """An example that is in from round 3 on is a row of round 3, and not of round 2."""
    bench = Bench(injections=[{"kind": "mislabelled", "per_client": 3, "start": 3}], model={"kind": "logistic"})
    store, is_new = bench.federation.store, []
    for run, client, value in ((run, client, value) for run in range(2) for client in range(3) for value in range(3)):
        expected = {}
        for number in (2, 3):
            at = bench.transition(bench.params(), level="local", client=client, run=run, round_number=number)
            ids = store.ids[bench.federation.rows(run, client, number)]
            expected[number] = bench.federation.row_columns.matches("class", str(value), ids).mean()
            (found,) = RowShare(value=str(value)).values(bench.context(at))["row_share"][:, 0, 0]
            assert found == expected[number]
        is_new.append(expected[2] != expected[3])
    assert any(is_new)
