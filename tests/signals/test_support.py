"""Tests of `fedmem/signals/_support.py`."""

from __future__ import annotations

import numpy as np

from fedmem.signals._support import choose_rows, own_rows, trained_support
from tests.signals.signals_helpers import Bench


def test_few_rows_are_all_read_and_more_are_drawn_alike() -> None:
    bench = Bench()
    context, rows = bench.context(bench.transition(bench.params())), np.arange(10, 30)
    assert choose_rows(context, rows, 20, "a") is rows
    some = choose_rows(context, rows, 5, "a")
    assert len(some) == 5
    assert np.isin(some, rows).all()
    np.testing.assert_array_equal(some, choose_rows(context, rows, 5, "a"))
    assert not np.array_equal(some, choose_rows(context, rows, 5, "b"))


def test_the_support_is_what_the_client_trains_on() -> None:
    bench = Bench()
    federation = bench.federation
    local, whole = bench.transition(bench.params(), level="local", client=1), bench.transition(bench.params())
    context = bench.context(whole)
    np.testing.assert_array_equal(trained_support(context, local, 10**6, "a"), federation.rows(0, 1, 2))
    everyone = trained_support(context, whole, 10**6, "a")
    assert len(everyone) == sum(len(federation.rows(0, client, 2)) for client in range(federation.num_clients))
    is_there = own_rows(context, everyone).any(axis=1)
    np.testing.assert_array_equal(is_there, federation.audit.is_in[0])
