"""Do adapters of low rank memorise less than full fine-tuning at equal utility, in a federation and centrally?

    fedmem fetch sotu
    fedmem fetch fashion_mnist
    fedmem fetch mnist5k
    python experiments/adapters/run.py --jobs 2

After Bossy et al. (2026) and Udsa et al. (2026). Small pretrained networks are fine-tuned as a whole, by adapters of
rank 1, 4 and 16, or by their head. `--choose` repeats the choice of learning rates on the development seed, and writes
`rates.csv`. Without it, the command writes `results.csv`, `gates.csv` and `adapters.png`; every number in README.md is
a row of one of them. Finished runs lie in `--out` and are not trained twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.adapters.analysis import at_levels, of_bank, table
from experiments.adapters.arms import (
    CENTRAL,
    CHOSEN,
    DEVELOPMENT,
    FEDERATED,
    LEVELS,
    TASKS,
    TRAINED,
    Arm,
)
from experiments.adapters.figure import FIGURE
from experiments.adapters.gates import gates
from experiments.adapters.public import public_model, public_network
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=5)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--choose", action="store_true", help="choose learning rates on the development seed")
    parser.add_argument("--set-public", action="append", default=[], help="path=value in the pretraining")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    makers = {"texts": public_model, "classes": public_network}
    public = {task: makers[task](arguments.out, arguments.set_public) for task in arguments.tasks}
    if arguments.choose:
        tried = [
            (arm, rate, public, DEVELOPMENT)
            for arm in arms(arguments.tasks)
            if arm.trained in TRAINED
            for rate in arm.rates
        ]
        found = pd.concat(cell_results(utility, tried, arguments), ignore_index=True)
        write_results(arguments.results, {"rates": found}, [], digits=4)
        return
    cells = [
        (arm, CHOSEN[arm.task][arm.where][arm.trained], public, seed)
        for seed in range(arguments.seeds)
        for arm in arms(arguments.tasks)
    ]
    values = pd.concat(cell_results(cell, cells, arguments), ignore_index=True)
    tables = {"results": table(values), "gates": gates(values)}
    write_results(arguments.results, tables, [FIGURE], digits=4)
    print(tables["gates"].to_string(index=False))


def arms(tasks: Sequence[str]) -> list[Arm]:
    """All arms of these tasks."""
    return [
        Arm(task=task, trained=trained, where=where)
        for task in tasks
        for where in (FEDERATED, CENTRAL)
        for trained in CHOSEN[task][where]
    ]


def cell(
    arm: Arm, rate: float, public: Mapping[str, Path], seed: int, out: Path, settings: Sequence[str]
) -> pd.DataFrame:
    """The values of one arm and seed, at each level of utility and in the last round."""
    run, bank = arm.bank(public[arm.task], out, seed=seed, rate=rate, settings=settings)
    print(f"{arm.task}, {arm.where}, {arm.trained}, seed {seed}: done", flush=True)
    read = at_levels(of_bank(run, bank), LEVELS[arm.task])
    return read.assign(task=arm.task, where=arm.where, trained=arm.trained, seed=seed)


def utility(
    arm: Arm, rate: float, public: Mapping[str, Path], seed: int, out: Path, settings: Sequence[str]
) -> pd.DataFrame:
    """The utility of one arm at one rate: its lowest loss on the test set, by how much it has fallen, and the round."""
    rounds = of_bank(*arm.bank(public[arm.task], out, seed=seed, rate=rate, settings=settings))
    losses = rounds[rounds.metric == "test_loss"].sort_values("round").reset_index(drop=True).value
    row = {"task": arm.task, "where": arm.where, "trained": arm.trained, "rate": rate, "test_loss": losses.min()}
    return pd.DataFrame([row | {"fall": losses[0] - losses.min(), "round": int(losses.argmin())}])


if __name__ == "__main__":
    main()
