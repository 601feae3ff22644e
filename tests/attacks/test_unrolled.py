"""Inversion of many local steps: against a plain loop, and against what must fail."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._training import Training
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.attacks.unrolled import Unrolled
from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.data import Examples
from fedmem.errors import TargetError
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.seeding import stream
from tests.attacks.unrolled_helpers import made, rows_of, stacked, streams, worked
from tests.lab import gradient_of, network, parameters


def quality(found: Reconstruction, rows: Examples) -> FloatArray:
    errors = squared_errors(found.inputs, rows.inputs)
    return np.asarray(psnr(errors[assign(errors), np.arange(len(rows))]))


# The simulation


def test_unrolled_repeats_clipping_pull_decay_and_schedule() -> None:
    """Clipping, a pull towards the start, weight decay and a learning rate that has decayed, as `sgd` has them."""
    client = Sgd(lr=0.5, steps=3, batch_size=4, clip=0.3, weight_decay=0.01, decay=0.5)
    offer: Params = {"round": torch.tensor(2), "mu": torch.tensor(0.3)}
    model, rows = network(nn.Tanh), rows_of(4)
    batches = client.batches(4, np.random.default_rng(0))
    before = parameters(model)
    state = client.init(before, offer, {})
    for places in batches:
        x, y = rows.inputs[places], rows.targets[places]
        state = client.step(state, partial(gradient_of, model, inputs=x, targets=y))
    sent = client.final(state, before).sent
    update = {name: sent[name].double() - value.double() for name, value in before.items()}
    target = replace(worked(client, rows, batches, model), update=update, payload=offer)
    truth = torch.from_numpy(rows.inputs).double()[None]
    assert Training(stacked([target])).cosine(truth).item() < 1e-9
    assert Training(stacked([replace(target, payload={**offer, "mu": torch.tensor(9.0)})])).cosine(truth).item() > 1e-5


# The attack


def test_unrolled_inverts_many_steps_better_than_one_step_attack() -> None:
    rows = rows_of(4)
    (found,) = Unrolled(steps=150, tv=0.0).reconstruct([made()], streams(1))
    (naive,) = InvertingGradients(steps=150, tv=0.0).reconstruct([made()], streams(1))
    assert found.labels.tolist() == rows.targets.tolist()
    assert np.median(quality(found, rows)) > 25
    assert np.median(quality(found, rows)) > np.median(quality(naive, rows)) + 6
    assert found.distance < 1e-4


def test_update_of_wrong_sign_is_not_inverted() -> None:
    target = made()
    turned = {name: -value for name, value in (target.update or {}).items()}
    wrong = replace(target, update=turned)
    (found,) = Unrolled(steps=80, tv=0.0, labels="known").reconstruct([wrong], streams(1))
    assert np.median(quality(found, rows_of(4))) < 12
    assert found.distance > 0.5


def test_one_step_on_all_images_is_what_inverting_gradients_does() -> None:
    target = made(client=Sgd(lr=0.5, steps=1, batch_size=4))
    problems = stacked([target])
    from fedmem.attacks._matching import Matching

    stack, matching = Training(problems), Matching(problems, torch.float64)
    torch.testing.assert_close(stack.cosine(stack.starts), matching.cosine(stack.starts), atol=1e-9, rtol=1e-7)


def test_drawn_order_needs_no_batches_and_reconstructs_worse() -> None:
    attack = Unrolled(steps=80, tv=0.0, labels="known", order="drawn", restarts=2)
    assert attack.knows == ("labels", "algorithm")
    assert Unrolled().knows == ("labels", "algorithm", "batches")
    target, rows = made(), rows_of(4)
    (blind,) = attack.reconstruct([target.grant(attack.knows)], streams(1))
    (seeing,) = replace(attack, order="known", restarts=1).reconstruct([target], streams(1))
    assert np.median(quality(seeing, rows)) > np.median(quality(blind, rows)) + 3
    assert seeing.distance < blind.distance


def test_without_labels_batches_do_not_reveal_label_places() -> None:
    """Places go by label; who is granted no labels finds the same images whatever the labels of a batch are."""
    attack, target = Unrolled(steps=60, tv=0.0, labels="inferred"), made()
    assert target.batches is not None
    other = replace(target, batches=np.array([2, 0, 3, 1])[target.batches])
    one, two = (shown.grant(attack.knows) for shown in (target, other))
    assert one.batches is not None
    assert two.batches is not None
    assert one.batches.tolist() == two.batches.tolist()
    assert one.batches[:2].ravel().tolist() == [0, 1, 2, 3]
    (knowing,) = replace(attack, labels="known").reconstruct([target], streams(1))
    rows, rngs = rows_of(4), [stream(1, "x", client=t) for t in range(4)]
    blind = attack.reconstruct([one] * 4, rngs)
    assert np.median(quality(knowing, rows)) > np.mean([np.median(quality(found, rows)) for found in blind]) + 3


def test_unrolled_targets_are_independent_and_blank_ones_nan() -> None:
    model = network(nn.Tanh)
    given = [made(3, 20, model=model), made(4, 40, model=model)]
    blank = replace(given[0], update={n: torch.zeros_like(u) for n, u in (given[0].update or {}).items()})
    attack = Unrolled(steps=15, labels="known")
    (alone,) = attack.reconstruct(given[1:], streams(2)[1:])
    _, beside, lost = attack.reconstruct([*given, blank], streams(3))
    assert np.allclose(alone.inputs, beside.inputs, atol=1e-4)
    assert np.isnan(lost.distance)
    assert np.isfinite(lost.inputs).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"clients": 5}, r"work of 5; .*levels: \[local\]"),
        ({"update": None}, "here is a gradient alone"),
        ({"algorithm": None}, "client's algorithm"),
        ({"algorithm": DpSgd(batch_size=2)}, "DpSgd clips the gradient of each record"),
        ({"batches": None}, "order: drawn"),
    ],
)
def test_unrolled_names_what_a_target_lacks(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        Unrolled(steps=1).reconstruct([replace(made(), **changed)], streams(1))
