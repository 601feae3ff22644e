"""Tests of `fedmem/contracts/tied_units.py`."""

from __future__ import annotations

from dataclasses import replace

from fedmem.contracts.federation import _parts_of, digest
from fedmem.contracts.tied_units import TiedLayer, TiedUnits
from fedmem.contracts.training_mode import TrainingMode
from fedmem.federation.build import build
from tests.tiny import tiny

TIED = TiedUnits(layers=(TiedLayer(name="activation1", units=8, fixed=2, tied=1),), seed=3)


def test_the_rest_of_the_units_is_dropped() -> None:
    assert TIED.layers[0].others == 6


def test_tied_units_are_no_training_mode_of_their_own() -> None:
    """The network that clients train stays in evaluation mode, so that it can be stacked."""
    assert not TrainingMode(tied=TIED).differs


def test_digests_tell_which_units_are_tied() -> None:
    """And are those of earlier versions where none are."""
    plain = build(tiny(runs=2))
    modes = [TrainingMode(), TrainingMode(tied=TIED), TrainingMode(tied=replace(TIED, unit="client"))]
    digests = [digest(replace(plain, mode=mode)) for mode in modes]
    assert len(set(digests)) == 3
    assert "tied" not in dict(_parts_of(TrainingMode()))
