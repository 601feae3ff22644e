"""Tests of `fedmem/signals/attribute_inference.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import NO_LABELS, Labels
from fedmem.errors import FedmemError
from fedmem.estimation.signal_means import SignalMeans
from fedmem.signals.attribute_inference import AttributeInference, csmia, exposure_of, lomia
from tests.banks import coins, make_view
from tests.signals.attribute_helpers import Answer, Context, Table, rows_of, table
from tests.tiny import tiny

SIGNAL = AttributeInference(column=1)


def read(where: Table, *models: Answer, signal: AttributeInference = SIGNAL) -> dict[str, FloatArray]:
    context: Any = Context(where, *models)
    return dict(signal.values(context))


def constant(inputs: NDArray[np.float32]) -> FloatArray:
    """The answer 0 whatever the row."""
    return np.tile([1.0, 0.0], (len(inputs), 1))


def lookup(where: Table) -> Answer:
    """It answers the label of a record of the table, surely, and the other label of any other."""
    records = {
        row.tobytes(): int(label) for row, label in zip(where.examples.inputs, where.examples.targets, strict=True)
    }

    def answer(inputs: NDArray[np.float32]) -> FloatArray:
        labels = {
            row[[0, 4, 5]].tobytes(): label
            for row, label in zip(where.examples.inputs, where.examples.targets, strict=True)
        }
        right = np.array(
            [records.get(row.tobytes(), 1 - labels[row[[0, 4, 5]].tobytes()]) for row in inputs], dtype=np.int64
        )
        return 20.0 * np.eye(2)[right]

    return answer


def distinct(count: int = 12) -> Table:
    """Records that differ in their number, with all three values and both labels."""
    places = np.arange(count)
    return table(places % 3, places % 2, numbers=places / count)


def test_a_lookup_table_gives_every_record_away() -> None:
    where = distinct()
    found = read(where, lookup(where), constant)
    for name in ("attribute_csmia", "attribute_weighted"):
        assert found[name][0].tolist() == [1.0] * 12, name
    np.testing.assert_allclose(found["attribute_exposure"][0], math.log2(3))


def test_a_constant_model_gives_the_mode_and_no_rank() -> None:
    where = distinct()
    found = read(where, constant)
    is_mode = where.examples.inputs[:, 1] == 1
    assert found["attribute_weighted"][0].tolist() == is_mode.astype(float).tolist()
    np.testing.assert_array_equal(found["attribute_mode"][0], is_mode)
    np.testing.assert_allclose(found["attribute_csmia"][0], 1 / 3)
    np.testing.assert_allclose(found["attribute_exposure"][0], math.log2(3 / 2))
    np.testing.assert_allclose(found["attribute_confidence"][0, :, 0], 3 / 7)


def test_a_lookup_gain_is_one_minus_the_prior() -> None:
    where, rng = distinct(), np.random.default_rng(0)
    is_in = coins(8, 12, rng)
    both = read(where, lookup(where), constant)["attribute_weighted"]
    values = np.where(is_in, both[0], both[1])
    view = replace(
        make_view(np.zeros((8, 12)), is_in, round_number=None), signals={"attribute_weighted": values[:, None]}
    )
    estimates = {(one.metric, one.labels): one for one in SignalMeans(signal=SIGNAL).estimate(view)}
    assert estimates["attribute_weighted", NO_LABELS].value == 1.0
    assert estimates["attribute_weighted", Labels.of(statistic="out")].value == pytest.approx(1 / 3)
    gain = estimates["attribute_weighted_gain", NO_LABELS]
    assert gain.value == pytest.approx(2 / 3)
    assert (gain.null, gain.n) == (0.0, 12)
    assert gain.p < 0.05


def test_models_that_ignore_the_coins_have_no_gain() -> None:
    where, rng, p = distinct(), np.random.default_rng(1), []
    for _ in range(30):
        weights = rng.standard_normal((8, 6, 2)) * 3
        found = read(where, *(lambda inputs, w=w: inputs @ w for w in weights))["attribute_csmia"]
        view = make_view(np.zeros((8, 12)), coins(8, 12, rng), round_number=None, draws=100)
        view = replace(view, signals={"attribute_csmia": found[:, None]})
        (gain,) = [one for one in SignalMeans(signal=SIGNAL).estimate(view) if one.metric == "attribute_csmia_gain"]
        p.append(gain.p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert abs(np.mean(p) - 0.5) < 0.2


def test_several_right_answers_give_the_surest_value() -> None:
    margin, everywhere = np.array([[3.0, 1.0, 2.0]]), np.ones((1, 3), dtype=bool)
    assert csmia(margin, margin, everywhere).tolist() == [[1, 0, 0]]
    assert csmia(margin, margin, np.array([[False, True, True]])).tolist() == [[0, 0, 1]]
    assert csmia(margin, margin, np.array([[False, True, False]])).tolist() == [[0, 1, 0]]


def test_no_right_answer_gives_the_least_sure_value() -> None:
    # of three labels the answer is a wrong one, and its confidence counts, not that of the label
    margin, confidence = np.array([[-9.0, -1.0, -2.0]]), np.array([[0.5, 3.0, 1.0]])
    assert csmia(margin, confidence, np.zeros((1, 3), dtype=bool)).tolist() == [[1, 0, 0]]


def test_tied_values_share_the_guess() -> None:
    margin = np.array([[2.0, 2.0, 1.0]])
    assert csmia(margin, margin, margin > 0).tolist() == [[0.5, 0.5, 0.0]]
    assert csmia(-margin, margin, margin < 0).tolist() == [[0.0, 0.0, 1.0]]


def test_saturated_probabilities_are_no_ties() -> None:
    margin = np.array([[60.0, 61.0]])
    assert csmia(margin, margin, margin > 0).tolist() == [[0.0, 1.0]]
    assert exposure_of(margin[None], np.array([1])).tolist() == [[1.0]]


def test_exposure_ranks_the_true_value() -> None:
    margin = np.array([[[3.0, 1.0, 0.0, 0.0]]])
    bits = [exposure_of(margin, np.array([value]))[0, 0] for value in range(4)]
    assert bits == pytest.approx([2.0, 1.0, 2 - math.log2(3.5), 2 - math.log2(3.5)])


def test_lomia_learns_from_records_with_one_answer() -> None:
    features = np.array([[0.0], [0.0], [8.0], [8.0], [0.0], [8.0]])
    is_right = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [0, 0]], dtype=bool)
    guess = lomia(is_right, np.zeros((6, 2)), features, np.array([0.9, 0.1]))
    np.testing.assert_allclose(guess, [[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]])


def test_lomia_without_such_records_guesses_the_mode() -> None:
    guess = lomia(np.ones((2, 2), dtype=bool), np.array([[0.0, 0.0], [np.nan, 0.0]]), np.eye(2), np.array([0.3, 0.7]))
    np.testing.assert_array_equal(guess, [[0, 1], [np.nan, np.nan]])


def test_lomia_is_read_where_it_is_asked_for() -> None:
    where = distinct()
    assert np.isnan(read(where, constant)["attribute_lomia"]).all()
    found = read(where, lookup(where), signal=AttributeInference(column=1, lomia=True))
    assert found["attribute_lomia"].tolist() == [[1.0] * 12]


def test_a_diverged_model_has_no_values() -> None:
    where = distinct()
    found = read(where, lambda inputs: np.full((len(inputs), 2), np.nan), constant)
    assert all(np.isnan(values[0]).all() for values in found.values())
    assert np.isfinite(found["attribute_imputed"][1]).all()


def test_an_example_without_a_value_has_none() -> None:
    where = table([0, -1, 2], [0, 1, 0], numbers=[0.1, 0.2, 0.3])
    found = read(where, constant)
    assert np.isnan(found["attribute_csmia"][0]).tolist() == [False, True, False]
    assert np.isnan(found["attribute_mode"][0]).tolist() == [False, True, False]


def test_the_difference_is_that_from_the_best_imputation() -> None:
    # in public rows, the other category gives the value away
    values, labels = np.arange(60) % 2, np.arange(60) // 2 % 2
    where = table([0, 1], [0, 0], population=rows_of(values, labels, others=values), others=[0, 1])
    found = read(where, constant)
    assert found["attribute_imputed"][0].tolist() == [1.0, 1.0]
    assert found["attribute_imputed_50"][0].tolist() == [1.0, 1.0]
    assert np.isnan(found["attribute_imputed_500"]).all()
    np.testing.assert_allclose(found["attribute_over_imputation"][0], found["attribute_weighted"][0] - 1.0)
    # without that column nothing is known but the mode
    blind = read(where, constant, signal=AttributeInference(column=1, without_columns=(2,)))
    assert blind["attribute_imputed"][0].sum() == 1.0


def test_values_of_a_model_do_not_depend_on_others() -> None:
    where = distinct()
    both = read(where, lookup(where), constant)
    alone = read(where, constant)
    for name, values in alone.items():
        np.testing.assert_array_equal(both[name][1], values[0])


TABLE: dict[str, Any] = {
    "runs": 8,
    "rounds": 1,
    "clients": 2,
    "dataset": {
        "kind": "csv",
        "path": "scenarios/patients.csv",
        "target": "outcome",
        "categorical": ["ward"],
        "sensitive": ["sex"],
        "include_sensitive": True,
        "drop": ["id", "hospital"],
        "missing": "fill",
    },
    "sampler": {"kind": "everyone"},
    "injections": [{"kind": "random_row", "per_client": 4, "copies": 4}],
    "observe": {"every": 1},
}


def test_a_table_of_the_user_at_all_places(tmp_path: Path) -> None:
    folder = fedmem.run(
        tiny(**TABLE, signals=[{"kind": "attribute_inference", "column": 1, "lomia": True}]), out=tmp_path
    )
    rows = [row for row in fedmem.read(folder).rows() if row.source == "attribute_inference"]
    places = {(row.level, row.reading.labels.text("place")) for row in rows}
    assert {level for level, _ in places} == {"local", "global"}
    assert "others" in {place for _, place in places}
    means = {row.reading.metric for row in rows}
    assert {"attribute_csmia", "attribute_imputed", "attribute_imputed_50", "attribute_csmia_gain"} <= means


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"column": 9}, "there is no column 9; the table has 5, numbered from 0, and the label is none of them"),
        ({"column": 1, "without_columns": [7]}, "there is no column 7"),
        ({"column": 1, "without_columns": [1]}, "column 1 is the one that is inferred"),
    ],
)
def test_wrong_columns_are_refused_by_the_check(fields: dict[str, Any], message: str) -> None:
    from fedmem.execution.plan import plan

    with pytest.raises(FedmemError, match=message):
        plan(tiny(**TABLE, signals=[{"kind": "attribute_inference", **fields}]))


def test_images_have_no_columns() -> None:
    from fedmem.federation.build import build

    with pytest.raises(FedmemError, match="reads the columns of a table"):
        build(tiny(dataset={"kind": "digits"}, signals=[{"kind": "attribute_inference"}]))
