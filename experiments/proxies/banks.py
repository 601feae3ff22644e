"""The banks of runs that experiments on proxies and on vulnerability share: one for each data set and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fedmem
from fedmem.contracts.evidence import Bank
from fedmem.results.read import read_bank
from fedmem.scenario.scenario import Scenario

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": [],
    "fashion_mnist": ["dataset={kind: fashion_mnist, rows: 1200, test: 500}", "model.hidden=[128, 128]"],
    "digits_slow": [
        "runs=8",
        "rounds=60",
        "client.epochs=1",
        "observe={every: 5}",
        "signals=[{kind: el2n}, {kind: input_curvature, every: 5, directions: 4}]",
    ],
    "texts": [
        "dataset={kind: shakespeare, clients: 8, length: 12, max_chars: 2400, test: 0.1}",
        "partition={kind: natural}",
        "model={kind: char_rnn, embedding: 24, hidden: 48}",
        "client={kind: sgd, lr: 2.0, epochs: 8, batch_size: 8, clip: 1.0}",
        "injections=[{kind: typical, per_client: 40}, {kind: random_tokens, per_client: 3, share: 0.5}]",
        "exclusion=remove",
        "population=10",
        "runs=16",
        "rounds=6",
        "observe={every: 2}",
        "signals=[{kind: el2n, every: 6}, {kind: entropy, every: 6}, {kind: logit_margin, every: 6}, "
        "{kind: grad_norm, every: 6, levels: [global]}]",
    ],
}
"""The settings of each data set, beside `scenario.yaml`."""


def scenarios(data: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one data set and seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *DATA[data], *settings])]


def bank(data: str, seed: int, out: Path, settings: Sequence[str]) -> Bank:
    """The runs of one data set and seed, trained if they are not there."""
    (scenario,) = scenarios(data, seed, settings)
    return read_bank(fedmem.run(scenario, out=out))
