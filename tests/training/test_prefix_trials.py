"""Tests of `fedmem/training/prefix_trials.py`: what may be stored, and what must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedmem.contracts.training_mode import TrainingMode
from fedmem.training.frozen_prefix import Continued, stored_outputs
from tests.training.prefix_helpers import (
    Adapted,
    Centred,
    Cut,
    InPlace,
    Jitter,
    RareFlag,
    RareNote,
    RareUse,
    Routed,
    Silent,
    Skip,
    Turned,
    Twice,
    found,
    head,
    initial,
    inputs,
    linear,
)

DRAWS = TrainingMode(draws=True)
STATISTICS = TrainingMode(statistics=("1.running_mean", "1.running_var"))

NETWORKS: dict[str, tuple[Callable[[], nn.Module], TrainingMode, list[str] | None]] = {
    "two frozen layers": (
        lambda: nn.Sequential(linear(), nn.ReLU(), linear(), head()),
        TrainingMode(),
        ["0", "1", "2"],
    ),
    "nothing frozen": (lambda: nn.Sequential(linear(trained=True), head()), TrainingMode(), None),
    "an adapter first": (lambda: nn.Sequential(Adapted(), linear(), head()), TrainingMode(), ["0.base"]),
    "a trained layer first": (lambda: nn.Sequential(linear(trained=True), linear(), head()), TrainingMode(), None),
    "a cut gradient first": (lambda: nn.Sequential(Cut(), linear(), head()), TrainingMode(), None),
    "a silent layer first": (lambda: nn.Sequential(Silent(), linear(), head()), TrainingMode(), None),
    "rows that mix": (lambda: nn.Sequential(linear(), Centred(), linear(), head()), TrainingMode(), ["0"]),
    "dropout first": (lambda: nn.Sequential(nn.Dropout(), linear(), head()), DRAWS, None),
    "dropout after it": (lambda: nn.Sequential(linear(), nn.Dropout(), head()), DRAWS, ["0"]),
    "an augmentation first": (lambda: nn.Sequential(Jitter(), linear(), head()), TrainingMode(), None),
    "an augmentation after it": (lambda: nn.Sequential(linear(), Jitter(), linear(), head()), TrainingMode(), None),
    "a second use": (Skip, TrainingMode(), ["one", "two"]),
    "two calls": (Twice, TrainingMode(), None),
    "rows on the second axis": (Turned, TrainingMode(), ["one"]),
    "written in place": (InPlace, TrainingMode(), ["one"]),
    "statistics that change": (
        lambda: nn.Sequential(linear(), nn.BatchNorm1d(8, affine=False), linear(), head()),
        STATISTICS,
        ["0"],
    ),
    "statistics that stay": (
        lambda: nn.Sequential(linear(), nn.BatchNorm1d(8, affine=False).eval(), head()),
        TrainingMode(),
        ["0", "1"],
    ),
    "a router that is trained": (Routed, TrainingMode(), None),
    "a flag that few rows set": (RareFlag, TrainingMode(), ["body"]),
    "a use by few rows": (RareUse, TrainingMode(), ["one", "two"]),
    "a note of a few rows": (RareNote, TrainingMode(), ["body.layer"]),
    "too little to save": (
        lambda: nn.Sequential(linear(), *(linear(trained=True) for _ in range(8)), head()),
        TrainingMode(),
        None,
    ),
}
every_network = pytest.mark.parametrize(("make", "mode", "names"), NETWORKS.values(), ids=NETWORKS)


@every_network
def test_what_lies_before_the_first_trained_layer(
    make: Callable[[], nn.Module], mode: TrainingMode, names: list[str] | None
) -> None:
    torch.manual_seed(0)
    model = make().eval() if mode.differs else make()
    before = initial(model, mode)
    prefix = found(model, mode)
    assert (None if prefix is None else [replaced.name for replaced in prefix.replaced]) == names
    # the network and its values stay as they were
    assert all(torch.equal(value, before[name]) for name, value in initial(model, mode).items())
    assert not any(part._forward_hooks or "forward" in vars(part) for part in model.modules())
    if prefix is not None:
        rows = inputs(5, seed=3)
        rows[1, 0] = 60  # as no row of the trial
        moved = {name: value + 0.5 for name, value in before.items()}
        rest = Continued(model, prefix)
        for _ in range(2):  # the second time from the same stored outputs
            outputs = stored_outputs(model, prefix, rows)
            expected = torch.func.functional_call(model, moved, (rows,))
            torch.testing.assert_close(rest(moved, rows, outputs), expected)
        assert prefix.operations[1] < prefix.operations[0]


def test_only_what_is_read_is_stored() -> None:
    chain = found(nn.Sequential(linear(), nn.ReLU(), linear(), head()))
    skip = found(Skip())
    assert chain is not None
    assert skip is not None
    assert (len(chain.parts), len(skip.parts)) == (1, 2)
    assert chain.row_bytes == 8 * 4
    assert chain.operations == (2 * (64 + 64 + 24), 2 * 24)
    assert chain.saved_share == pytest.approx(128 / 152)


@pytest.mark.slow
def test_a_network_of_the_package_is_split_at_its_last_block() -> None:
    pytest.importorskip("transformers")
    from fedmem.contracts.model import trained_parameters
    from fedmem.training.prefix_trials import find_prefix
    from tests.models.huggingface_helpers import built, random_model, rows

    model = built(random_model("bert", train=1), classes=3)
    params = {name: value.detach().clone() for name, value in trained_parameters(model).items()}
    prefix = find_prefix(model, params, rows(9, padded=True))
    assert prefix is not None
    names = [replaced.name for replaced in prefix.replaced]
    assert names == ["network.bert.embeddings", "network.bert.encoder.layer.0"]
    assert prefix.parts == (((12, 16), torch.float32),)
    few = rows(6, padded=True)
    logits = Continued(model, prefix)(params, few, stored_outputs(model, prefix, few))
    torch.testing.assert_close(logits, model(few))
