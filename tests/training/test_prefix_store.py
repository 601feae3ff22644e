"""Tests of `fedmem/training/prefix_store.py`: outputs by row, the same in any order and process."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.data import Examples
from fedmem.contracts.training_mode import TrainingMode
from fedmem.errors import RunError
from fedmem.training.client_work import TrainedClient
from fedmem.training.executor import BaseExecutor, Settings
from fedmem.training.frozen_prefix import stored_outputs
from fedmem.training.one_by_one import OneByOne
from fedmem.training.prefix_store import BLOCK, PrefixStore
from fedmem.training.stacked import Stacked, Task
from fedmem.training.worker_pool import PooledExecutor
from tests.training.prefix_helpers import CLASSES, Capped, found, head, initial, inputs, linear
from tests.training.test_frozen_prefix import Counted

ROWS = 2 * BLOCK + 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(linear(), nn.Tanh(), linear(), nn.Tanh(), head())


def examples(count: int = ROWS, seed: int = 1) -> Examples:
    targets = np.random.default_rng(seed).integers(CLASSES, size=count)
    return Examples(inputs=inputs(count, seed).numpy(), targets=targets, ids=np.arange(count))


def store_of(model: nn.Module, data: Examples, *others: Tensor) -> PrefixStore:
    prefix = found(model)
    assert prefix is not None
    return PrefixStore(prefix, model, data, [part.numpy() for part in others])


def test_rows_have_the_bits_of_their_block_in_any_order() -> None:
    model, data = network(), examples()
    forwards, backwards = (store_of(model, data, inputs(5, 2)) for _ in range(2))
    rows = torch.arange(ROWS + 5)
    (one,) = forwards.read(rows)
    (other,) = backwards.read(rows.flip(0).view(-1, 1))
    assert torch.equal(one, other.view(-1, 8).flip(0))
    whole = torch.cat([torch.from_numpy(data.inputs), inputs(5, 2)])
    torch.testing.assert_close(one, stored_outputs(model, forwards.prefix, whole)[0])
    assert forwards.nbytes == 3 * BLOCK * 8 * 4


def test_only_blocks_that_are_read_are_computed() -> None:
    calls: list[int] = []
    model, data = network(), examples()
    store = store_of(model, data)
    model.get_submodule("0").register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        store.read(torch.tensor([[1, 2], [ROWS - 1, 3]]))
    # a block once to store it, and in four batches to verify it
    assert len(calls) == 2 * (1 + 4)


def test_rows_are_found_by_their_content_alone() -> None:
    data = examples()
    store = store_of(network(), data, inputs(5, 2))
    places = store.find(np.concatenate([data.inputs[[7, 3]], inputs(5, 2).numpy()[4:]]))
    assert places is not None
    assert places.tolist() == [7, 3, ROWS + 4]
    noisy = data.inputs[:2].copy()
    noisy[1, 0] = np.nextafter(noisy[1, 0], np.float32(9))
    assert store.find(noisy) is None
    assert store.find(data.inputs[:0]) is None
    assert store.find(data.inputs[:2, :4]) is None
    assert store.find(data.inputs[:2].astype(np.float64)) is None


def test_equal_hashes_are_not_taken_for_equal_rows() -> None:
    data = examples()
    store = store_of(network(), data)
    other = inputs(1, 9).numpy()
    store.__dict__["_places"] = {hash(other[0].tobytes()): 3}
    assert store.find(other) is None


def test_forked_processes_fill_the_same_memory() -> None:
    store = store_of(network(), examples())
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        store.read(torch.tensor([0]))
        os._exit(0)
    os.waitpid(child, 0)
    assert store._filled.tolist() == [1, 0, 0]
    kept = store.read(torch.tensor([0]))[0]
    assert torch.equal(kept, store_of(network(), examples()).read(torch.tensor([0]))[0])


def test_outputs_that_depend_on_the_size_of_a_batch() -> None:
    # nine rows of the trial fill no expert; a block of 32 does
    store = store_of(nn.Sequential(linear(), Capped(), head()), examples())
    with pytest.raises(RunError, match="give the logits of the network"):
        store.read(torch.tensor([0]))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_rows_of_any_value_are_verified(value: float) -> None:
    data = examples()
    data.inputs[5, 0] = value
    (outputs,) = store_of(network(), data).read(torch.tensor([4, 5]))
    assert outputs[0].isfinite().all()


def test_a_value_that_is_no_constant_ends_the_run() -> None:
    model = Counted()
    store = store_of(model, examples())
    model.counter.number = 2
    with pytest.raises(RunError, match="cache_prefix: off"):
        store.read(torch.tensor([0]))


def trained(executor: BaseExecutor, before: Params) -> tuple[list[TrainedClient], FloatArray]:
    client = Sgd(lr=0.5, epochs=2, batch_size=4)
    tasks = []
    for i, size in enumerate((12, 7, 10)):
        rng = np.random.default_rng(i)
        rows = rng.permutation(ROWS)[:size]
        tasks.append(Task(run=i, round=1, client=i, before=before, rows=rows, batches=client.batches(size, rng)))
    done = executor.train(tasks)
    logits = executor.logits([one.outcome.sent for one in done], examples().inputs[3:50])
    executor.close()
    return done, logits


def test_every_executor_trains_and_watches_as_without() -> None:
    model, data, client = network(), examples(), Sgd(lr=0.5, epochs=2, batch_size=4)
    before = initial(model, TrainingMode())
    stored = Settings(prefix=store_of(model, data))
    plain, plain_logits = trained(OneByOne(model, client, data), before)
    ends = {
        name: trained(executor, before)
        for name, executor in (
            ("one", OneByOne(model, client, data, stored)),
            ("pool", PooledExecutor(model, client, data, Settings(prefix=store_of(model, data)), workers=2)),
            ("stack", Stacked(model, client, data, stored)),
        )
    }
    for done, logits in ends.values():
        np.testing.assert_allclose(logits, plain_logits, rtol=0, atol=1e-5)
        for one, other in zip(done, plain, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-5)
            torch.testing.assert_close(dict(one.outcome.sent), dict(other.outcome.sent))
    for one, other in zip(ends["one"][0], ends["pool"][0], strict=True):
        assert all(torch.equal(value, other.outcome.sent[name]) for name, value in one.outcome.sent.items())
    # the stored outputs are what was read
    store = stored.prefix
    assert store is not None
    assert store._filled.any()


def test_positions_of_another_store_are_not_read() -> None:
    model, data = network(), examples()
    client = Sgd(lr=0.5, epochs=1, batch_size=4)
    assert OneByOne(model, client, examples(), Settings(prefix=store_of(model, data)))._prefix is None
    assert OneByOne(model, client, data, Settings(prefix=store_of(model, data)))._prefix is not None
