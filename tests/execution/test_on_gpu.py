"""What a GPU computes, against the processor: `make gpu`. Nothing here has run yet where these lines were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmem.contracts.evidence import TrainedBank
from fedmem.execution.bank import simulate
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.training import graphs
from fedmem.training.precision import full_precision, products_of_steps
from tests.tiny import tiny
from tests.training.precision_helpers import distance

pytestmark = pytest.mark.gpu

CNN: dict[str, Any] = {"model": {"kind": "small_cnn"}, "dataset": {"kind": "digits"}}
DP = {"client": {"kind": "dp_sgd", "lr": 0.1, "clip": 0.5, "noise_multiplier": 0.5, "batch_size": 8}}
MOMENTUM = {"client": {"kind": "sgd", "lr": 0.1, "batch_size": 8, "momentum": 0.9, "clip": 1.0}}


def trained(device: str, executor: str = "auto", precision: str = "fp32", **changes: Any) -> TrainedBank:
    speed = {"device": device, "executor": executor, "precision": precision, "workers": 1}
    scenario = tiny(runs=2, rounds=2, **changes, speed=speed)
    return simulate(scenario, build(scenario))


@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
@pytest.mark.parametrize("changes", [{}, CNN, DP, MOMENTUM], ids=["mlp", "cnn", "dp_sgd", "momentum"])
def test_a_gpu_gives_what_a_processor_gives(executor: str, changes: dict[str, Any]) -> None:
    cpu, gpu = trained("cpu", "one_by_one", **changes), trained("cuda", executor, **changes)
    assert (gpu.device, gpu.executor, gpu.card) == ("cuda", executor, torch.cuda.get_device_name())
    assert distance(gpu, cpu) < 1e-4
    for evidence, other in zip(gpu.bank.evidence, cpu.bank.evidence, strict=True):
        assert evidence.margin.dtype == other.margin.dtype
        torch.testing.assert_close(torch.tensor(evidence.margin), torch.tensor(other.margin), rtol=1e-3, atol=1e-3)


def test_the_same_run_on_a_gpu_gives_the_same_bits() -> None:
    assert distance(trained("cuda"), trained("cuda")) == 0


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_differs_by_its_rounding(precision: str) -> None:
    far = distance(trained("cuda", precision=precision, **CNN), trained("cuda", **CNN))
    assert 1e-6 < far < 0.1


def test_fp32_is_no_tf32() -> None:
    """Of a product and a convolution, against float64: TF32 would be off by a thousandth."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 512, 512, device="cuda")
    images, filters = torch.randn(8, 32, 16, 16, device="cuda"), torch.randn(32, 32, 3, 3, device="cuda")

    def errors() -> list[float]:
        product = (a @ b).double() - a.double() @ b.double()
        convolved = torch.nn.functional.conv2d(images, filters).double()
        exact = torch.nn.functional.conv2d(images.double(), filters.double())
        return [float(product.abs().max()) / 100, float((convolved - exact).abs().max()) / 100]

    with full_precision():
        assert max(errors()) < 1e-5
        with products_of_steps("tf32"):
            assert min(errors()) > 1e-5


def test_scenarios_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    scenarios = [tiny(seed=seed, rounds=2, speed={"device": "cuda"}) for seed in range(3)]
    together = run_all(scenarios, out=tmp_path / "together")
    assert [outcome.error for outcome in together] == [None] * 3
    for scenario, outcome in zip(scenarios, together, strict=True):
        manifests = [
            json.loads((folder / "manifest.json").read_text())
            for folder in (outcome.folder, run(scenario, out=tmp_path / "alone"))
        ]
        assert manifests[0]["card"] == manifests[1]["card"] == torch.cuda.get_device_name()
        assert (manifests[0]["device"], manifests[0]["precision"]) == ("cuda", "fp32")


@pytest.mark.parametrize("changes", [{}, CNN, DP, MOMENTUM], ids=["mlp", "cnn", "dp_sgd", "momentum"])
def test_graphs_give_the_bits_of_steps(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A `GraphWarning` is an error here, so that each step is captured."""
    long: dict[str, Any] = {**changes, "dataset": {"kind": "digits"}}
    monkeypatch.setattr(graphs._Graphs, "is_refused", False)
    before = graphs._Graphs.count
    graphed = trained("cuda", **long)
    assert graphs._Graphs.count > before
    monkeypatch.setattr(graphs._Graphs, "is_refused", True)
    assert distance(trained("cuda", **long), graphed) == 0
