"""The arms: what is trained, where, and how fast; one bank for each arm and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fedmem
from fedmem.contracts.evidence import Bank
from fedmem.results.read import Run, read_bank

HERE = Path(__file__).resolve().parent
DEVELOPMENT = 100
"""The seed on which learning rates, levels and claims were chosen; it is not among the reported seeds."""

TASKS = {"texts": "scenario.yaml", "classes": "classes.yaml"}
FEDERATED, CENTRAL = "federated", "central"
RATES = (0.03, 0.1, 0.3, 1.0)
"""The learning rates that are tried on the development seed for each arm."""

MORE_RATES: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("texts", FEDERATED): {"head": 3.0},
    ("classes", CENTRAL): {"full": 0.01, "r=16": 0.01, "r=4": 0.01, "r=1": 0.01},
}
"""One more rate of arms whose best was at an end of `RATES`."""

TRAINED: Mapping[str, tuple[int, str]] = {
    "full": (0, "all"),
    "r=16": (16, "adapters"),
    "r=4": (4, "adapters"),
    "r=1": (1, "adapters"),
    "head": (0, "head"),
}
"""Name of the trained part -> the rank of its adapters, 0 without, and the part."""


SLOWER = "full, slower"
"""A control: full fine-tuning in clients at the next lower rate that was tried."""

CHOSEN: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "texts": {
        FEDERATED: {"full": 0.3, "r=16": 0.3, "r=4": 0.3, "r=1": 0.3, "head": 1.0, SLOWER: 0.1},
        CENTRAL: {"full": 0.1, "r=16": 0.1, "r=4": 0.1, "r=1": 0.1, "head": 0.1},
    },
    "classes": {
        FEDERATED: {"full": 0.1, "r=16": 0.1, "r=4": 0.1, "r=1": 0.1, "head": 0.3, SLOWER: 0.03},
        CENTRAL: {"full": 0.01, "r=16": 0.01, "r=4": 0.01, "r=1": 0.01, "head": 0.1},
    },
}
"""The learning rates of all arms: of those tried, the rate with the lowest loss on the test set in any round."""

LEVELS: Mapping[str, Mapping[str, float]] = {
    "texts": {"r=16": 0.40, "r=4": 0.33, "r=1": 0.19, "head": 0.58},
    "classes": {"r=16": 1.63, "r=4": 1.53, "r=1": 1.34, "head": 1.17},
}
"""By how many nats the loss on the test set has fallen where arms are compared, by the arm that each level is for.

It is nine tenths of the largest fall on the development seed, federated or central, whichever is smaller. So full
fine-tuning is stopped where it is as useful as that arm is near its end.
"""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the experiment: a task, what is trained, and whether clients or one model train."""

    task: str
    trained: str
    where: str

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates that are tried."""
        more = MORE_RATES.get((self.task, self.where), {})
        return (*RATES, *((more[self.trained],) if self.trained in more else ()))

    def changes(self, public: Path) -> list[str]:
        """The changes of the task's scenario."""
        rank, part = TRAINED["full" if self.trained == SLOWER else self.trained]
        if self.task == "texts":
            changes = [f"model.path={public}", f"dataset.tokenizer={public}"]
            adapters = f"model.peft={{r: {rank}, alpha: {2 * rank}, targets: [c_attn, c_proj, c_fc]}}"
            changes += [adapters] if rank else [f"model.train={part}"]
        else:
            fresh = "[output.*, '*.lora_*']" if rank else "[output.*]"
            changes = [f"initial_weights={{from: {public}, except: {fresh}}}"]
            changes.append(f"model.r={rank}" if rank else f"model.train={part}")
        return changes + (["central=shuffled"] if self.where == CENTRAL else [])

    def bank(
        self, public: Path, out: Path, *, seed: int, rate: float, settings: Sequence[str] = ()
    ) -> tuple[Run, Bank]:
        """The finished runs of one seed, trained if they are not there."""
        changes = [*self.changes(public), f"seed={seed}", f"client.lr={rate}", *settings]
        folder = fedmem.run(fedmem.load_scenario(HERE / TASKS[self.task], changes), out=out)
        return fedmem.read(folder), read_bank(folder)


def arms() -> list[Arm]:
    """All arms."""
    return [
        Arm(task=task, trained=trained, where=where)
        for task in TASKS
        for where in (FEDERATED, CENTRAL)
        for trained in CHOSEN[task][where]
    ]
