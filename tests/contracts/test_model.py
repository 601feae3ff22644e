"""What every model promises, for every file in the folder."""

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from fedmem.contracts.model import Model, TableModel, TextModel, is_trained_stacked, model_declaration
from fedmem.errors import ComponentError
from fedmem.modalities.loss import mean_loss
from fedmem.scenario import catalogue

KINDS = [kind for kind in catalogue.kinds("model") if not isinstance(catalogue.load("model", kind)(), TextModel)]
"""Models of texts that know the vocabulary are tested in `tests/models/test_huggingface.py`: their import is slow."""

every_model = pytest.mark.parametrize("kind", KINDS)
BLOCKS, CLASSES, LENGTH = (1, 3, 1, 2), 10, 7
SHAPES = ((1, 8, 8), (2, 30))
"""Shapes of numbers; a model is tested with the first one that it reads."""


def make(kind: str) -> Model | TableModel:
    component = catalogue.load("model", kind)()
    assert isinstance(component, (Model, TableModel))
    return component


def build(kind: str, seed: int = 0) -> torch.nn.Module:
    model = make(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, TableModel):
            return model.build_table(BLOCKS, CLASSES)
        return model.build(shape_of(kind), classes_of(kind))


def classes_of(kind: str) -> int:
    """The outputs of an example: one for each class, or its log-density."""
    return 1 if model_declaration(make(kind)).densities else CLASSES


def of_texts(kind: str) -> bool:
    """Whether a model reads rows of tokens, and says at each place what comes next."""
    return bool(getattr(make(kind), "texts", False))


def shape_of(kind: str) -> tuple[int, ...]:
    """The shape of inputs that a model is tested with."""
    model = make(kind)
    assert isinstance(model, Model)
    for shape in ((LENGTH,),) if of_texts(kind) else SHAPES:
        try:
            model.build(shape, CLASSES)
        except ComponentError:
            continue
        return shape
    raise AssertionError(f"{kind} reads inputs of none of these shapes")


def inputs(kind: str, count: int, seed: int = 0) -> torch.Tensor:
    """Images, tokens, or rows of a table: numbers and one-hots."""
    rng = np.random.default_rng(seed)
    if model_declaration(make(kind)).binary_inputs:
        return torch.from_numpy(rng.integers(2, size=(count, *shape_of(kind))).astype(np.float32))
    if of_texts(kind):
        return torch.from_numpy(rng.integers(CLASSES, size=(count, LENGTH)))
    if not isinstance(make(kind), TableModel):
        return torch.from_numpy(rng.random((count, *shape_of(kind)), dtype=np.float32))
    columns = [rng.random((count, 1)) if k == 1 else np.eye(k)[(np.arange(count) + 1) % k] for k in BLOCKS]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))


@every_model
def test_gives_one_logit_per_class(kind: str) -> None:
    logits = build(kind)(inputs(kind, 5))
    assert logits.shape == ((5, LENGTH, CLASSES) if of_texts(kind) else (5, classes_of(kind)))
    assert torch.isfinite(logits).all()


@every_model
def test_builds_the_same_network_from_the_same_seed(kind: str) -> None:
    one, other, third = build(kind, 1), build(kind, 1), build(kind, 2)
    assert list(dict(one.named_parameters())) == list(dict(other.named_parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), third.parameters(), strict=True))


@every_model
def test_parameters_are_float32_and_train(kind: str) -> None:
    module = build(kind)
    params = dict(module.named_parameters())
    logits = module(inputs(kind, 6))
    loss = mean_loss(logits.flatten(0, -2), torch.arange(logits[..., 0].numel()) % classes_of(kind))
    for name, gradient in zip(params, torch.autograd.grad(loss, list(params.values())), strict=True):
        assert params[name].dtype == torch.float32, name
        assert gradient.abs().sum() > 0, name


@every_model
def test_rows_do_not_see_each_other(kind: str) -> None:
    """Otherwise the prediction of an audit example would depend on what is evaluated beside it."""
    module, rows = build(kind).eval(), inputs(kind, 7)
    together = module(rows)
    apart = torch.cat([module(row[None]) for row in rows])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if is_trained_stacked(make(kind), "cuda")])
def test_stackable_models_have_no_buffers_and_stack_correctly(kind: str) -> None:
    modules = [build(kind, seed).double() for seed in range(3)]  # so that deep networks differ by no rounding
    params, buffers = stack_module_state(modules)
    assert not buffers
    rows = inputs(kind, 4)
    rows = rows.double() if rows.is_floating_point() else rows

    def loss(own: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(modules[0], own, (rows,)).flatten(0, -2)
        return mean_loss(logits, torch.arange(len(logits)) % classes_of(kind))

    stacked = vmap(grad(loss))(params)
    for i, module in enumerate(modules):
        single = grad(loss)(dict(module.named_parameters()))
        for name, value in single.items():
            torch.testing.assert_close(stacked[name][i], value, rtol=1e-5, atol=1e-7)
