"""Tests of `fedmem/signals/_update_descent.py`."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.signals._update_descent import descent_by, update_of
from tests.signals.signals_helpers import Bench


def test_a_short_update_lowers_losses_by_its_descent() -> None:
    bench = Bench()
    before = bench.params(1, scale=0.3)
    sent = {name: value + 1e-3 * bench.params(2)[name] for name, value in before.items()}
    context = bench.context(bench.transition(sent, before=before))
    update = update_of(context, 0)
    assert all(value.dtype == torch.float64 for value in update.values())
    inputs = torch.from_numpy(bench.examples.inputs).double()
    fall = (bench.losses(before, inputs) - bench.losses(sent, inputs)).numpy()
    np.testing.assert_allclose(descent_by(context, 0, update), fall, rtol=0.05, atol=1e-4)
    assert np.corrcoef(descent_by(context, 0, update), fall)[0, 1] > 0.999
