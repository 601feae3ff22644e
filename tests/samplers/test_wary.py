"""Tests of `fedmem/samplers/wary.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.sampler import History, sampler_declaration
from fedmem.errors import ComponentError
from fedmem.samplers.wary import Wary, _deviations
from tests.samplers.guided_helpers import counts, known

LOSSES = [0.2, 0.4, 0.9, np.nan]


def test_the_first_client_follows_the_softmax() -> None:
    history = known([3, 3, 3, 3], last_loss=LOSSES)
    losses = np.array(LOSSES[:3])
    z = np.append((losses - losses.mean()) / losses.std(), 0.0)
    expected = np.exp(-1.5 * z) / np.exp(-1.5 * z).sum()
    found = np.array(counts(Wary(size=1, beta=1.5), history)) / 4000
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 4000))
    assert found[0] > found[3] > found[2]


def test_no_strength_and_equal_reports_are_uniform() -> None:
    for sampler, losses in ((Wary(size=2, beta=0.0), LOSSES), (Wary(size=2, beta=5.0), [0.1 + 0.2, 0.3, 0.3, 0.3])):
        found = np.array(counts(sampler, known([3, 3, 3, 3], last_loss=losses)))
        if sampler.beta == 0:
            np.testing.assert_allclose(found / 4000, 0.5, atol=0.04)
    assert counts(Wary(size=2, beta=5.0), known([3] * 4, last_loss=[0.3] * 4)) == counts(
        Wary(size=2, beta=0.0), known([3] * 4, last_loss=[0.3] * 4)
    )
    assert counts(Wary(size=2), History.start([3] * 4)) == counts(Wary(size=2, beta=0.0), History.start([3] * 4))


def test_any_strength_keeps_the_order_of_reports() -> None:
    history = known([3] * 4, last_loss=[9.0, 8.0, 0.1, 0.0])
    assert counts(Wary(size=3, beta=1e5), history, times=5) == [0, 5, 5, 5]
    assert counts(Wary(size=1, beta=1e5), history, times=5) == [0, 0, 0, 5]


def test_norms_are_read_where_asked_for() -> None:
    history = known([3] * 4, last_loss=[9.0, 0.0, 0.0, 0.0], last_norm=[0.0, 0.0, 0.0, 9.0])
    assert counts(Wary(size=3, beta=50.0, by="norm"), history, times=5) == [5, 5, 5, 0]
    assert counts(Wary(size=3, beta=50.0), history, times=5) == [0, 5, 5, 5]
    assert sampler_declaration(Wary(by="norm")).needs == ("last_norm",)
    assert sampler_declaration(Wary()).needs == ("last_loss",)


def test_diverged_reports_count_as_the_largest() -> None:
    np.testing.assert_allclose(_deviations(np.array([1.0, np.inf, 3.0])), _deviations(np.array([1.0, 3.0, 3.0])))
    assert _deviations(np.array([np.inf, np.nan])).tolist() == [0.0, 0.0]
    assert _deviations(np.array([2.0])).tolist() == [0.0]


def test_clients_without_rows_are_never_picked() -> None:
    history = known([0, 3, 3, 3], last_loss=[0.0, 1.0, 2.0, 3.0])
    assert counts(Wary(size=2), history)[0] == 0
    with pytest.raises(ComponentError, match="3 of 4 clients have rows"):
        Wary(size=4).cohort(1, history, np.random.default_rng(0))
