"""The arms: a task, a strategy and a sampler, and what is tried for each on the development seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import fedmem
from experiments.adapters.public import public_network
from fedmem.scenario.scenario import Scenario

HERE = Path(__file__).resolve().parent

DEVELOPMENT = 100
"""The seed on which rates and parameters are chosen; it is not among the reported seeds."""

BUDGET = 6
"""How many settings are tried for each arm."""

RATES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
"""The rates of clients that are tried where a strategy has no parameter of its own."""

FEW_RATES = (0.1, 0.3, 0.8)
"""Those tried with each of two values of a parameter."""


class Rule(NamedTuple):
    """A strategy as YAML, with `{}` where the values of its parameter go."""

    text: str
    values: tuple[float, ...] = ()


STRATEGIES: Mapping[str, Rule] = {
    "fedavg": Rule("{{kind: fedavg}}"),
    "fedavg, uniform": Rule("{{kind: fedavg, weighting: uniform}}"),
    "fedadam": Rule("{{kind: fedadam, server_lr: {}}}", (0.01, 0.03)),
    "fedexp": Rule("{{kind: fedexp}}"),
    "fedmedian": Rule("{{kind: fedmedian}}"),
    "trimmed_mean": Rule("{{kind: trimmed_mean, beta: {}}}", (0.15, 0.3)),
    "krum": Rule("{{kind: krum, f: {}}}", (1, 2)),
    "geometric_median": Rule("{{kind: geometric_median}}"),
    "norm_clipping": Rule("{{kind: norm_clipping, radius: {}}}", (0.5, 1.5)),
    "sign_majority": Rule("{{kind: sign_majority, server_lr: {}}}", (0.003, 0.01)),
    "typicality": Rule("{{kind: typicality, beta: {}}}", (2.0, 5.0)),
    "rotate": Rule("{{kind: rotate, rest: {}}}", (2, 4)),
}
SAMPLERS: Mapping[str, str] = {
    "uniform": "{kind: uniform, size: 8}",
    "by_size": "{kind: by_size, size: 8}",
    "atypical": "{kind: atypical, size: 8}",
    "min_separation": "{kind: min_separation, size: 8, separation: 2}",
}
FEDAVG, UNIFORM = "fedavg", "uniform"
"""The references of strategies, and of samplers."""

SIX = ("fedavg", "fedadam", "fedmedian", "krum", "norm_clipping", "rotate")
"""The strategies on a convolutional network and on adapters, with the uniform sampler."""

CNN, ADAPTERS = "digits, CNN", "adapters"
TASKS: Mapping[str, tuple[str, ...]] = {
    "digits": (),
    "fashion_mnist": ("dataset={kind: fashion_mnist, rows: 2000, test: 400}",),
    CNN: ("model={kind: small_cnn, channels: [8, 16]}",),
    ADAPTERS: (
        "dataset={kind: mnist5k, rows: 1800, test: 400}",
        'model={kind: "experiments.adapters.image_network:AdaptedMlp", r: 4}',
        "client.clip=1.0",
    ),
}
"""Task -> changes of the scenario. The first two are small networks with one hidden layer."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A strategy with a sampler on one task.

    Attributes:
        task: A key of `TASKS`.
        strategy: A key of `STRATEGIES`.
        sampler: A key of `SAMPLERS`.
    """

    task: str
    strategy: str
    sampler: str

    @property
    def settings(self) -> list[tuple[float, float]]:
        """The settings that are tried: the rate of clients, and the value of the parameter, NaN without one."""
        values = STRATEGIES[self.strategy].values
        if not values:
            return [(rate, float("nan")) for rate in RATES]
        return [(rate, value) for value in values for rate in FEW_RATES]

    def scenario(self, rate: float, value: float, seed: int, out: Path, settings: Sequence[str] = ()) -> Scenario:
        """The scenario of one setting and seed. Adapters start from a public network, which is trained where missing.

        Args:
            rate: Rate of clients.
            value: Value of the parameter; without meaning for strategies without one.
            seed: The seed.
            out: Where the run of the public network is.
            settings: Further changes, `path=value`.
        """
        rule = STRATEGIES[self.strategy]
        shown = f"{value:g}" if rule.values else ""
        changes = [*TASKS[self.task], f"strategy={rule.text.format(shown)}", f"sampler={SAMPLERS[self.sampler]}"]
        changes += [f"client.lr={rate:g}", f"seed={seed}"]
        if self.task == ADAPTERS:
            changes.append(f"initial_weights={{from: {public_network(out)}, except: [output.*, '*.lora_*']}}")
        return fedmem.load_scenario(HERE / "scenario.yaml", [*changes, *settings])

    def best(self) -> tuple[float, float]:
        """Rate and parameter with the highest accuracy on the development seed."""
        rows = tries()
        rows = rows[(rows.task == self.task) & (rows.strategy == self.strategy) & (rows.sampler == self.sampler)]
        (row,) = rows[rows.chosen].itertuples()
        return float(row.rate), float(row.value)  # type: ignore[arg-type]


def strategies_of(task: str) -> Sequence[str]:
    """The strategies of a task."""
    return SIX if task in (CNN, ADAPTERS) else tuple(STRATEGIES)


def arms_of(task: str, strategy: str) -> Iterator[Arm]:
    """The arms of a strategy on a task: with each sampler, or with the uniform one alone."""
    for sampler in (UNIFORM,) if task in (CNN, ADAPTERS) else SAMPLERS:
        yield Arm(task=task, strategy=strategy, sampler=sampler)


@cache
def tries() -> pd.DataFrame:
    """The settings that were tried on the development seed: `tries.csv` as `choose.py` writes it."""
    return pd.read_csv(HERE / "tries.csv")
