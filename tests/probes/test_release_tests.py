"""Tests of `fedmem/probes/_release_tests.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.probes._release_tests import SERVER, new_draws_of_tree
from fedmem.strategies._rule import ServerRule
from fedmem.strategies.dp_ftrl import DpFtrl
from tests.probes.mechanism_helpers import SERVERS, made, outcome


def test_the_smallest_array_without_noise_is_found() -> None:
    found, _ = outcome(made(strategy=SERVERS["dp_fedavg"]), "one_layer:output.bias")
    assert "noise variance" in found[0]
    assert "array=output.bias" in found[0]
    assert "release=server" in found[0]


def test_the_noise_that_a_tree_states_is_that_of_its_rule() -> None:
    """Over many runs the change of each round has the stated variance."""
    import torch

    from fedmem.strategies._rule import Round

    runs = 2000
    before = {"w": torch.zeros(runs, 1, dtype=torch.float64)}
    nobody = torch.full((runs, 1), -1)
    for tree in (
        DpFtrl(clip=2.0, noise_multiplier=0.5, expected_cohort_size=1.0, restart=5),
        DpFtrl(clip=2.0, noise_multiplier=0.5, expected_cohort_size=1.0, honaker=False),
    ):
        assert isinstance(tree, ServerRule)
        state, now = tree.state(before, 1), before
        releases: dict[tuple[Labels, int, int, int], FloatArray] = {}
        rows: list[Measurement] = []
        for number in range(1, 9):

            def generators(number: int = number) -> tuple[np.random.Generator, ...]:
                return tuple(np.random.default_rng([number, run]) for run in range(runs))

            round_number = Round(
                number=number,
                before=now,
                sent={name: value[:, None] for name, value in now.items()},
                weights=torch.zeros(runs, 1, dtype=torch.float64),
                present=nobody >= 0,
                clients=nobody,
                generators=generators,
            )
            after, state = tree.rule(state, round_number)
            changed = (after["w"] - now["w"]).numpy()
            stated = tree.release_statement(number)
            assert stated is not None
            expected = (stated["noise"] * stated["clip"]) ** 2
            assert stated["noise"] == pytest.approx(0.5 * stated["deviation"])
            assert np.mean(changed**2) == pytest.approx(expected, rel=0.1)
            now = after
            releases[SERVER, 0, -1, number] = changed[:, 0] / expected**0.5
            for name in ("place", "deviation", "new", *(name for name in stated if name.startswith("left:"))):
                reading = Reading(metric="tree", value=stated[name], n=1, labels=SERVER.plus(statistic=name))
                rows.append(
                    Measurement(run=0, round=number, level="global", client=-1, source="mechanism", reading=reading)
                )
        drawn = np.array([value for _, value in sorted(new_draws_of_tree(releases, rows).items())])
        # standard normal and independent, which the changes themselves are not
        assert np.corrcoef(drawn) == pytest.approx(np.eye(8), abs=0.08)
        assert (drawn**2).mean(axis=1) == pytest.approx(np.ones(8), rel=0.1)
        assert np.abs(np.corrcoef(np.array(list(releases.values()))) - np.eye(8)).max() > 0.3
