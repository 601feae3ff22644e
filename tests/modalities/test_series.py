"""Time series through a whole run: what reads images alone refuses them, and the report draws them as lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.attacks._matching import total_variation
from fedmem.errors import ScenarioError
from fedmem.execution.run import run
from fedmem.modalities.series import Series
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from tests.tiny import tiny

SERIES = {"kind": "cylinder_bell_funnel", "rows": 200, "test": 20, "length": 16, "channels": 2, "sensors": 3}


def series(**changes: Any) -> Scenario:
    """A tiny scenario on series with all measures."""
    attack = {"kind": "inverting_gradients", "steps": 1, "tv": 0.1}
    measures: dict[str, Any] = {
        "runs": 4,
        "clients": 3,
        "references": 20,
        "rounds": 1,
        "observe": {"every": 1},
        "probes": [
            {"kind": "leakage", "attack": attack, "victims": 1, "runs": 1, "max_images": 4, "first_step": False}
        ],
        "estimators": [
            {"kind": "memorisation"},
            {"kind": "exposure"},
            {"kind": "membership", "attack": {"kind": "loss_threshold"}},
        ],
    }
    fields = {"dataset": SERIES, "partition": {"kind": "natural"}, "model": {"kind": "conv1d", "width": 4}}
    return tiny(**{**fields, **measures, **changes})


def test_a_run_measures_and_draws_series(tmp_path: Path) -> None:
    folder = run(series(), out=tmp_path)
    measurements = read(folder).measurements
    measured = set(measurements[measurements["value"].notna()]["metric"])
    assert {"memorisation", "exposure", "auc", "margin", "psnr", "mse"} <= measured
    assert not measured & {"ssim", "cells", "similarity"}
    kept = read(folder).reconstructions()
    names = {name for name in kept if name.endswith("/original")}
    assert names
    for name in names:
        assert kept[name].shape[1:] == (2, 16)
        assert set(kept[name.replace("original", "modality")].tolist()) == {"series"}
    assert (folder / "reconstructions.png").read_bytes().startswith(b"\x89PNG")


def test_each_channel_is_drawn_as_a_line() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    values = np.random.default_rng(0).random((3, 16))
    Series.draw(axes, values)
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], values)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model": {"kind": "small_cnn"}}, "model"),
        ({"model": {"kind": "char_rnn"}}, "model"),
        ({"injections": [{"kind": "unique_feature", "per_client": 1}]}, "injections"),
        ({"injections": [{"kind": "random_row", "per_client": 1}]}, "injections"),
        ({"partition": {"kind": "feature_skew"}}, "partition"),
    ],
)
def test_parts_for_other_kinds_of_data_refuse_series(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ScenarioError, match=place):
        run(series(**changes), out=tmp_path)


def test_total_variation_of_series_is_that_over_time() -> None:
    values = torch.rand(1, 2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    axes = len(Series().grid((3, 16)))
    found, _ = total_variation(values, torch.full((1, 2), 0.5, dtype=torch.float64), axes)
    torch.testing.assert_close(found[0], values.diff(dim=3).abs().mean())


def test_a_sketch_has_a_line_of_bars_for_each_channel() -> None:
    rise = np.linspace(0, 1, 8)
    assert Series().sketch(np.stack([rise, rise[::-1]])) == ("▁▂▃▄▅▆▇█", "█▇▆▅▄▃▂▁")
    assert [len(line) for line in Series().sketch(np.zeros((9, 200)))] == [64] * 4
