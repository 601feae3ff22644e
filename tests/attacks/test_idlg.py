"""Tests of `fedmem/attacks/idlg.py`."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fedmem.attacks.dlg import DLG
from fedmem.attacks.idlg import IDLG
from tests.attacks.newton_helpers import streams, targets
from tests.lab import network


def test_the_label_comes_first_in_the_one_and_last_in_the_other() -> None:
    """iDLG reads the negative entry of the bias; DLG has no use for it, and finds the label with the image."""
    (target,), (row,) = targets(network(nn.Sigmoid), [1])
    hidden = replace(target, gradient={**target.gradient, "3.bias": target.gradient["3.bias"].flip(0)})
    (first,), (last,) = (attack.reconstruct([hidden], streams(1)) for attack in (IDLG(steps=60), DLG(steps=60)))
    assert first.labels.tolist() == [9 - row.targets[0]]
    assert last.labels.tolist() == row.targets.tolist()
