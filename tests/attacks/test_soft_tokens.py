"""Tests of `fedmem/attacks/_soft_tokens.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.attacks._soft_tokens import ROUNDING, Soft, may_stand, slopes_at, slopes_of, were_read
from fedmem.contracts.attack import GradientTarget
from fedmem.modalities.text.windows import inputs_and_targets
from fedmem.modalities.texts import Texts
from fedmem.models.char_rnn import CharRnn
from fedmem.models.transformer import Transformer
from fedmem.strategies._rule import share, weighted_mean
from tests.lab import gradient_of, parameters
from tests.probes.text_leakage_helpers import L, V, network, target_of, windows


def test_shares_that_are_decided_have_the_gradient_of_training() -> None:
    """Of whole and of short texts; the mean over all tokens would be another one."""
    truth, target = windows(3, 3, [L + 1, 4, 6]), target_of(network(), windows(3, 3, [L + 1, 4, 6]))
    tokens = torch.full((3, L + 1, V), -1e4)
    tokens.scatter_(2, torch.from_numpy(np.maximum(truth, 0))[..., None], 1e4)
    ends = torch.full((3, L), -1e4)
    ends[torch.arange(3), torch.from_numpy((truth >= 0).sum(1) - 2)] = 1e4
    soft = Soft(tokens=tokens, ends=ends)
    everything = torch.ones((L + 1, V), dtype=torch.bool)
    np.testing.assert_array_equal(soft.most_probable_tokens(everything), truth)
    for found in (slopes_of(target, "tokens", soft, everything), slopes_at(target, truth)):
        for name, value in target.gradient.items():
            torch.testing.assert_close(found[name].detach(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_recurrent_kernels_can_be_differentiated_twice(cell: Any) -> None:
    """The slope of a matching distance against small steps, in the embeddings that a search moves."""
    target = target_of(network(CharRnn(cell=cell, embedding=4, hidden=6)), windows(1))
    everything = torch.ones((L + 1, V), dtype=torch.bool)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, L + 1, V)).astype(np.float32))
    start = Soft.start(10 * noise)

    def distance(tokens: torch.Tensor) -> torch.Tensor:
        found = slopes_of(target, "embedding", Soft(tokens=tokens, ends=start.ends), everything)
        return torch.stack([(found[key] - value).square().sum() for key, value in target.gradient.items()]).sum()

    tokens = start.tokens.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(tokens), tokens)
    way = slope / slope.norm()
    step = 0.05
    ahead, back = (float(distance((tokens + sign * step * way).detach()).detach()) for sign in (1, -1))
    assert (ahead - back) / (2 * step) == pytest.approx(float(slope.norm()), rel=0.02)


def test_unread_last_token_may_stand_inside_a_row() -> None:
    truth = np.where(windows(5, lengths=[L + 1, 6, L + 1, L + 1, L + 1]) == 9, 3, windows(5, lengths=[L + 1, 6]))
    truth[1, 5] = 9
    target = target_of(network(), truth)
    read = were_read(target, "tokens")
    assert set(torch.nonzero(read)[:, 0].tolist()) == set(
        inputs_and_targets(truth)[0][inputs_and_targets(truth)[1] >= 0].tolist()
    )
    assert not read[9]
    allowed = may_stand(target, "tokens", read)
    assert allowed[1:, 9].all()
    assert not allowed[0, 9]
    assert allowed[-1].all()
    assert not allowed[:-1].all(1).any(), "most of what was neither read nor asked for stays out"
    opposite = {name: -value for name, value in target.gradient.items()}
    assert not may_stand(replace(target, gradient=opposite), "tokens", read)[1, 9], "the sign is that of a gradient"
    silent = {name: value for name, value in target.gradient.items() if name != "output.bias"}
    assert may_stand(replace(target, gradient=silent), "tokens", read)[1:].all(), "without a bias nothing is known"


@pytest.mark.parametrize("sizes", [[55, 63, 55, 52], [69, 57, 64, 51]])
def test_rounding_in_the_mean_of_clients_touches_no_token(sizes: list[int]) -> None:
    """47 of 97 tokens, read by four clients whose models are averaged in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer(width=16, heads=2, layers=1).build((15,), 97)
    before, tokens = parameters(model), np.random.default_rng(0).permutation(97)[:47]
    rows = np.resize(tokens, 120).reshape(4, 2, 15)
    sent = []
    for own in rows:
        slopes = gradient_of(model, before, own, np.roll(own, -1, axis=1))
        sent.append({name: value - 0.1 * slopes[name] for name, value in before.items()})
    weights = share(torch.tensor([sizes], dtype=torch.float64), torch.ones((1, 4), dtype=torch.bool))
    after = weighted_mean({name: torch.stack([one[name] for one in sent])[None] for name in before}, weights)
    update = {name: after[name][0].double() - value.double() for name, value in before.items()}
    target = GradientTarget(
        model=model,
        params=before,
        gradient={name: -10 * value for name, value in update.items()},
        update=update,
        num_images=8,
        input_shape=(15,),
        target_shape=(15,),
        num_classes=97,
        modality=Texts(),
        knows="",
        clients=4,
    )
    assert int((update["tokens.weight"] != 0).any(1).sum()) > 90, "rounding moves nearly all"
    assert torch.nonzero(were_read(target, "tokens"))[:, 0].tolist() == sorted(tokens.tolist())
    least = update["tokens.weight"].abs().amax(1)[torch.from_numpy(tokens)].min()
    assert least > 100 * 4 * ROUNDING * before["tokens.weight"].abs().mean(), "what is read moves far more than that"


def test_any_move_of_a_zero_weight_counts_as_read() -> None:
    target = target_of(network(), windows(1))
    weight = target.params["tokens.weight"].clone()
    weight[3] = 0.0
    move = torch.zeros_like(weight, dtype=torch.float64)
    move[3, 0], move[5] = 1e-30, ROUNDING * weight[5]
    params, update = {**target.params, "tokens.weight": weight}, {**target.gradient, "tokens.weight": move}
    for clients, wanted in ((1, [3, 5]), (2, [3])):
        found = were_read(replace(target, params=params, update=update, clients=clients), "tokens")
        assert torch.nonzero(found)[:, 0].tolist() == wanted
    still = {**update, "tokens.weight": torch.zeros_like(move)}
    assert were_read(replace(target, params=params, update=still, clients=2), "tokens").all(), "nothing is known"
