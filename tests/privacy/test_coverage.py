"""What components read of clients, and that a guarantee is refused or restricted where no noise covers it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console

import fedmem
from fedmem.cli.plan_text import check_file, plan_text
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome, client_declaration
from fedmem.contracts.defence import defence_declaration
from fedmem.contracts.sampler import History, sampler_declaration
from fedmem.contracts.strategy import strategy_declaration
from fedmem.defences.clip import Clip
from fedmem.defences.noise import Noise
from fedmem.errors import ScenarioError
from fedmem.execution.run import run
from fedmem.privacy import coverage, spending
from fedmem.reporting.page import report
from fedmem.reporting.table import table
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.min_separation import MinSeparation
from fedmem.samplers.uniform import Uniform
from fedmem.scenario.catalogue import kinds, load
from fedmem.strategies._rule import Arrays, Round
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.privacy.coverage_helpers import NOISE, Undeclared
from tests.tiny import sampled, tiny

UNIFORM = {"kind": "fedavg", "weighting": "uniform"}
CANARIES = [{"kind": "random_pattern", "per_client": 12}]
ALARM = {"kind": "audit", "example_kind": "random_pattern", "alarm": True}


@dataclass(frozen=True, kw_only=True)
class Blind(Undeclared):
    """Reads updates alone."""

    reads: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class Leaking(DpFedAvg):
    """Adds noise to its sum, and uses exact losses beside it."""

    reads: ClassVar[tuple[str, ...]] = ("loss",)


class Chosen(Uniform):
    """Picks those with most rows, and inherits that it reads nothing."""

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> np.ndarray:
        return np.sort(np.argsort(history.sizes)[-self.size :])


class Declared(Chosen):
    """The same, and says what it reads."""

    reads: ClassVar[tuple[str, ...]] = ("rows",)


class Named(Uniform):
    """Another name for the same."""


class Described:
    """A method that is no function: what a library's wrapper leaves in a class."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return lambda round_number, history, rng: Chosen(size=instance.size).cohort(round_number, history, rng)


class Wrapped(Uniform):
    """Picks those with most rows by a method that is no function."""

    cohort = Described()


class Often(MinSeparation):
    """Picks the same clients in every round, and inherits the rounds between two turns."""

    reads: ClassVar[tuple[str, ...]] = ()

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> np.ndarray:
        return np.arange(2)


class Spacious(Often):
    """Says itself how far turns are apart."""

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> np.ndarray:
        return np.arange(2)

    def min_separation(self, num_clients: int) -> int:
        return 1


class Everyone2(Everyone):
    """One that leaves a client out for each new one, and inherits that it displaces nobody."""

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> np.ndarray:
        return np.arange(min(history.num_clients, 3))


class Earlier(Sgd):
    """Ends when it likes, and inherits that its steps depend on rows alone."""

    def final(self, state: ClientState, before: Params) -> Outcome:
        return replace(super().final(state, before), report={"steps": torch.tensor(1.0)})


class Silenced(DpFedAvg):
    """Adds no noise, and inherits that its noise covers what it reads."""

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        return rnd.before, state


class Longer(Clip):
    """Clips to twice the norm, and inherits the bound."""

    def apply(self, update: Params, drawn: Params) -> Params:
        return Clip(norm=2 * self.norm).apply(update, drawn)


class Quieter(Noise):
    """Adds no noise, and inherits the deviation."""

    def apply(self, update: Params, drawn: Params) -> Params:
        return update


WEAKER = (Longer, Quieter)
READERS = {
    (Uniform, Everyone): sampler_declaration,
    (Sgd,): client_declaration,
    (Clip, Noise): defence_declaration,
    (DpFedAvg,): strategy_declaration,
}


# --- declarations are true --------------------------------------------------------------------------------------------


def rounds_of(**changes: torch.Tensor) -> Round:
    generator = torch.Generator().manual_seed(0)
    report = {name: torch.ones((1, 7), dtype=torch.float64) for name in ("loss", "steps", "lr")}
    weights = changes.pop("rows", torch.full((1, 7), 10, dtype=torch.float64))
    return Round(
        number=1,
        before={"w": torch.zeros((1, 4))},
        sent={"w": torch.randn((1, 7, 4), generator=generator)},
        weights=weights,
        present=torch.ones((1, 7), dtype=torch.bool),
        clients=torch.arange(7)[None],
        report={**report, **changes},
        generators=lambda: (np.random.default_rng(0),),
    )


def variants() -> list[Any]:
    """Every strategy, with each weighting and with a cap where it has one."""
    found = []
    for kind in kinds("strategy"):
        made = load("strategy", kind)()
        names = {item.name for item in fields(made)}
        found.append(made)
        found += [replace(made, weighting=one) for one in ("size", "uniform") if "weighting" in names]
        found += [replace(made, cap=40)] if "cap" in names else []
    return found


def name_of(strategy: Any) -> str:
    return "-".join([type(strategy).__name__, getattr(strategy, "weighting", ""), str(getattr(strategy, "cap", ""))])


@pytest.mark.parametrize("strategy", variants(), ids=name_of)
def test_a_strategy_reads_what_it_declares_and_nothing_else(strategy: Any) -> None:
    """By its next model and state, when one value of all clients changes."""

    def after(rnd: Round) -> list[torch.Tensor]:
        model, state = strategy.rule(strategy.state(rnd.before, 7), rnd)
        return [*model.values(), *state.values()]

    declared = strategy_declaration(strategy).reads
    if declared is None:
        pytest.skip("declares nothing, so that it has no guarantee")
    plain = after(rounds_of())
    for word in ("rows", "loss", "steps", "lr"):
        changed = after(rounds_of(**{word: torch.arange(1, 8, dtype=torch.float64)[None]}))
        assert all(map(torch.equal, plain, changed)) == (word not in declared)


@pytest.mark.parametrize("kind", kinds("sampler"))
def test_a_sampler_reads_what_it_declares_and_nothing_else(kind: str) -> None:
    """By its cohorts, over fifty seeds, when one value of all clients changes."""
    sampler = tiny(**sampled(kind)).sampler
    reads = coverage.sampler_reads(sampler)
    if "unknown" in reads:
        pytest.skip("declares nothing, so that it has no guarantee")
    assert reads <= set(coverage.WORDS)
    seen = replace(
        History.start([10] * 5), last_loss=np.ones(5), last_norm=np.ones(5), last_round=np.zeros(5, np.int64)
    )
    unequal = np.array([1, 90, 3, 40, 5])
    others = {
        "rows": replace(seen, sizes=unequal),
        "atypical": replace(seen, atypical=unequal),
        "loss": replace(seen, last_loss=unequal.astype(float)),
        "norm": replace(seen, last_norm=unequal.astype(float)),
    }
    for word, history in others.items():
        same = all(
            np.array_equal(
                sampler.cohort(3, seen, np.random.default_rng(seed)),
                sampler.cohort(3, history, np.random.default_rng(seed)),
            )
            for seed in range(50)
        )
        # a sampler that only leaves out clients without rows reads rows too
        assert same == (word not in reads) or (word == "rows" and kind in ("update_aware", "wary"))


# --- noise at clients -------------------------------------------------------------------------------------------------


def local(**changes: Any) -> Any:
    return tiny(**{"runs": 2, "defences": NOISE, "injections": [], **changes})


@pytest.mark.parametrize("kind", kinds("client"))
def test_shipped_clients_take_steps_by_their_rows_alone(kind: str) -> None:
    client: Any = load("client", kind)
    assert client.steps_by_rows is True


def test_a_declaration_does_not_speak_of_methods_of_a_subclass() -> None:
    """Inherited, it has the value of a class that declares nothing: no guarantee, no amplification."""
    for part, name, expected in (
        (Named(size=3), "reads", ()),
        (Named(size=3), "law", "fixed_size"),
        (Chosen(size=3), "reads", None),
        (Chosen(size=3), "law", None),
        (Declared(size=3), "reads", ("rows",)),
        (Wrapped(size=3), "reads", None),
        (Everyone(), "displaces_nobody", True),
        (Everyone2(), "displaces_nobody", False),
        (Sgd(), "steps_by_rows", True),
        (Earlier(), "steps_by_rows", False),
        (DpFedAvg(noise_multiplier=1.0), "noise_covers", ("rows",)),
        (Silenced(noise_multiplier=1.0), "noise_covers", ()),
        (Clip(norm=2.0), "norm_bound", 2.0),
        (Longer(norm=2.0), "norm_bound", None),
        (Noise(), "gaussian_deviation", 0.01),
        (Quieter(), "gaussian_deviation", None),
    ):
        reader: Any = next(read for classes, read in READERS.items() if isinstance(part, classes))
        record = reader(part)
        assert getattr(record, name) == expected, (part, name)
        assert (name in record.outdated) == (type(part) in (Chosen, Wrapped, Everyone2, Earlier, Silenced, *WEAKER))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": {"kind": "tests.privacy.test_coverage:Chosen", "size": 3}}, "nothing is known of how"),
        ({"strategy": {"kind": "tests.privacy.test_coverage:Silenced", "noise_multiplier": 1.0}}, "Silenced"),
    ],
)
def test_subclass_with_own_methods_inherits_no_guarantee(changes: Any, said: str) -> None:
    strategy = {"kind": "dp_fedavg", "noise_multiplier": 1.0}
    with pytest.raises(ScenarioError, match=said):
        tiny(**{"runs": 2, "injections": [], "strategy": strategy, **changes})


@pytest.mark.parametrize("wrapped", [False, True])
def test_min_separation_is_not_inherited_by_other_cohort_methods(wrapped: bool) -> None:
    """`dp_ftrl` and records counted a client that comes in every round as one that comes in every fourth."""
    for sampler, pause in (
        (MinSeparation(size=2, separation=4), 4),
        (Often(size=2, separation=4), None),
        (Spacious(size=2, separation=4), 1),
    ):
        assert coverage.minimum_separation_of(Dropout(sampler=sampler) if wrapped else sampler, 8) == pause
    kind = {"kind": "tests.privacy.test_coverage:Often", "size": 1, "separation": 4}
    with pytest.raises(ScenarioError, match="may pick a client in any round"):
        tiny(
            runs=2,
            injections=[],
            strategy={"kind": "dp_ftrl", "noise_multiplier": 1.0},
            sampler={"kind": "dropout", "sampler": kind} if wrapped else kind,
        )


@pytest.mark.parametrize("reads", ["rows", ("row",), ("unknown",)])
def test_unknown_value_in_reads_is_refused(reads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Declared, "reads", reads)
    with pytest.raises(ScenarioError, match=r"Declared declares reads = .*should be a tuple of some of rows, steps"):
        tiny(sampler={"kind": "tests.privacy.test_coverage:Declared", "size": 3})


@pytest.mark.parametrize(("strategy", "exact"), [("fednova", "numbers of local steps"), ("scaffold", "learning rates")])
def test_steps_are_covered_only_if_the_client_declares_them(strategy: str, exact: str) -> None:
    """A client of one's own may report what depends on its data, between neighbours with the same number of rows."""
    made = load("strategy", strategy)()
    silent, declared = (load("client", kind)() for kind in ("tests.toys:Secretive", "sgd"))
    sampler = tiny().sampler
    ((reader, said),) = coverage.uncovered_by_clients(made, sampler, silent, "shared")
    assert reader.path == "strategy"
    assert exact in said
    assert "rows" not in said
    assert not list(coverage.uncovered_by_clients(made, sampler, declared, "shared"))
    with pytest.raises(ScenarioError, match=rf"{strategy} reads .*{exact}.* declare on the client steps_by_rows"):
        local(client={"kind": "tests.toys:Secretive"}, strategy={"kind": strategy})
    # weights by rows do not use steps
    assert local(client={"kind": "tests.toys:Secretive"})


def test_reader_of_updates_only_keeps_the_guarantee() -> None:
    """Also norms of noisy updates, in a run that draws its own roster: they are made of what is released anyway."""
    blind = {"kind": "tests.privacy.test_coverage:Blind"}
    own = {"sampler": {"kind": "update_aware", "size": 2}, "roster": "per_run", "observe": {"levels": ["global"]}}
    for changes in ({"strategy": blind}, {"strategy": UNIFORM, **own}):
        (one,) = spending.of_scenario(local(**changes))
        assert one.same_rows == ("sampler" in changes)
    assert "number of rows" not in spending.of_scenario(local(strategy=UNIFORM))[0].covers.split(";")[0]


@pytest.mark.parametrize(
    ("changes", "reader"),
    [
        ({}, "fedavg"),
        ({"strategy": {"kind": "fednova"}}, "fednova"),
        ({"strategy": UNIFORM, **sampled("by_size")}, "by_size"),
        ({"strategy": UNIFORM, **sampled("clustered")}, "clustered"),
    ],
)
def test_exact_numbers_of_rows_restrict_the_guarantee(changes: dict[str, Any], reader: str) -> None:
    (one,) = spending.of_scenario(local(**changes))
    assert one.same_rows
    assert f"between clients with the same number of rows, because {reader} reads that number" in one.covers
    assert one.against == "the updates that clients send"


def test_delta_is_below_one_over_the_clients_for_every_mechanism() -> None:
    """With 0.5 epsilon was printed as 0."""
    with pytest.raises(ScenarioError, match=r"privacy.delta: 0.5 allows publishing one of 5 clients.* 1/5"):
        local(privacy={"delta": 0.5})
    local(privacy={"delta": 0.1})
    tiny(privacy={"delta": 0.5})


def test_removal_changes_the_number_of_rows_that_is_read() -> None:
    changes = {"injections": CANARIES, "estimators": [ALARM], "exclusion": "remove"}
    with pytest.raises(ScenarioError, match=r"alarm: exclusion: remove compares n rows with n - 1"):
        local(**changes)
    assert local(**changes, strategy=UNIFORM)
    assert local(**{**changes, "exclusion": "replace"})


def test_the_restriction_stands_wherever_epsilon_does(tmp_path: Path) -> None:
    scenario = local(rounds=2, observe={})
    folder = run(scenario, out=tmp_path)
    finished = fedmem.read(folder)
    (said,) = finished.manifest["privacy"]["mechanisms"]
    text = "between clients with the same number of rows, because fedavg reads that number"
    assert text in said["covers"]
    assert said["same_rows"] is True
    rows = finished.measurements[finished.measurements.source == "privacy"]
    assert len(rows)
    assert rows.same_rows.tolist() == [True] * len(rows)
    console = Console(width=300)
    with console.capture() as captured:
        console.print(table(folder))
    pages = [captured.get(), report(folder).read_text()]
    file = tmp_path / "local.yaml"
    file.write_text(scenario.to_yaml())
    pages.append(plan_text(check_file(file)))
    for page in pages:
        assert text in " ".join(page.split())
    for page in pages[:2]:
        assert "A guarantee of one run" in page
        assert "PCG64" in page
        assert "together they guarantee less" in " ".join(page.split())


# --- noise at the server ----------------------------------------------------------------------------------------------


def test_a_noisy_strategy_may_read_only_what_its_noise_covers() -> None:
    noisy = {"sampler": {"kind": "poisson", "rate": 0.5}, "runs": 2}
    for changes in ({}, {"cap": 20}):
        tiny(strategy={"kind": "dp_fedavg", "expected_cohort_size": 2.5, **changes}, **noisy)
    with pytest.raises(ScenarioError, match=r"strategy: .*Leaking reads the losses, which its noise does not cover"):
        tiny(strategy={"kind": "tests.privacy.test_coverage:Leaking", "expected_cohort_size": 2.5}, **noisy)
