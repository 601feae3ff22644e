"""What a scenario promises: who, by which part, at which epsilon, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fedmem
from fedmem.cli.plan_text import check_file, plan_text
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Participation
from fedmem.contracts.families import kind_of
from fedmem.contracts.measurement import EVERYWHERE, FINAL
from fedmem.contracts.sampler import History, Sampler
from fedmem.errors import ComponentError, ScenarioError
from fedmem.execution.run import measure, run
from fedmem.privacy import mechanisms, spending
from fedmem.privacy.accounting import Releases, gaussian_epsilon, guarantee_of
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.reporting.measures import shipped_measures, terms_of
from fedmem.reporting.privacy_sections import _epsilon
from fedmem.reporting.table import table
from fedmem.samplers.availability import Availability
from fedmem.samplers.by_size import BySize
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.min_separation import MinSeparation
from fedmem.samplers.poisson import Poisson
from fedmem.samplers.uniform import Uniform
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Privacy
from strategies._rule import Round, ServerRule
from strategies.dp_adaptive import DpAdaptive, noise_of_bits, noise_of_updates
from strategies.dp_fedavg import DpFedAvg
from tests.narrowing import instance, present
from tests.neighbours import epsilon_at_least, opposed
from tests.tiny import tiny
from tests.toys import OneOf, Outspoken, Together

POISSON = {"kind": "poisson", "rate": 0.5}
NOISY = {"kind": "dp_fedavg", "expected_cohort_size": 2.5}


def private(**changes: Any) -> Any:
    return tiny(**{"runs": 2, "sampler": POISSON, "strategy": NOISY, "injections": [], **changes})


def only(scenario: Any) -> Releases:
    (one,) = spending.of_scenario(scenario)
    return one.releases


@pytest.mark.parametrize(
    ("sampler", "cohort", "sampling", "rate", "adjacency"),
    [
        (POISSON, 2.5, "poisson", 0.5, "add_remove"),
        ({"kind": "uniform", "size": 2}, 2.0, "fixed_size", 0.4, "zero_out"),
        ({"kind": "everyone"}, 5.0, "everyone", 1.0, "add_remove"),
        ({"kind": "cyclic", "size": 2}, 2.0, "everyone", 1.0, "zero_out"),
    ],
)
def test_samplers_are_credited_with_what_is_proven(
    sampler: dict[str, Any], cohort: float, sampling: str, rate: float, adjacency: str
) -> None:
    found = only(private(sampler=sampler, strategy={**NOISY, "expected_cohort_size": cohort}))
    assert (found.sampling, found.rate, found.adjacency) == (sampling, rate, adjacency)
    assert (found.count, found.unit, found.delta, found.noise_multiplier) == (4, "client", 1e-5, 1.0)


def test_the_neighbours_asked_for() -> None:
    assert only(private(privacy={"adjacency": "replace"})).adjacency == "replace"
    assert not spending.of_scenario(tiny())
    nobody: Any = SimpleNamespace(participation=[])
    assert spending.spending_record(tiny(), nobody) is None


def test_noise_on_bits_that_is_too_little_for_the_target_is_told() -> None:
    adaptive = {"kind": "dp_adaptive", "expected_cohort_size": 2.5, "bit_noise": 0.4}
    with pytest.raises(ScenarioError, match=r"strategy: privacy.target_epsilon 1 takes .* raise bit_noise above"):
        private(strategy={**adaptive, "noise_multiplier": None}, privacy={"target_epsilon": 1.0})
    # enough for the noise that is asked for, however little that is
    assert only(private(strategy={**adaptive, "noise_multiplier": 0.5})).noise_multiplier == 0.5


def test_noise_is_found_before_training_and_written_down() -> None:
    scenario = private(strategy={**NOISY, "noise_multiplier": None}, privacy={"target_epsilon": 8.0})
    assert 7.9 < guarantee_of(only(scenario)).epsilon <= 8
    again = parse_scenario(scenario.to_yaml())
    found, chosen = (present(instance(one.strategy, DpFedAvg).noise_multiplier) for one in (again, scenario))
    assert found == chosen > 0.5
    assert again.id == scenario.id


def test_noise_for_cohorts_of_a_fixed_size_holds_for_clients_who_send_the_opposite() -> None:
    """All others send minus the clip; the client sends the clip, or nothing. Who is not drawn is replaced."""
    chosen = private(
        clients=100,
        rounds=50,
        sampler={"kind": "uniform", "size": 2},
        strategy={"kind": "dp_fedavg", "expected_cohort_size": 2.0, "noise_multiplier": None},
        privacy={"target_epsilon": 2.0},
    )
    found = only(chosen)
    assert (found.sampling, found.adjacency, found.rate, found.count) == ("fixed_size", "zero_out", 0.02, 50)
    assert 1.99 < guarantee_of(found).epsilon <= 2
    assert epsilon_at_least([(opposed(0.02), found.noise_multiplier, 50)], 1e-5, 2e-4) <= 2
    allowed = permitted_guarantee(
        AuditedUnit(unit="client", adjacency="zero_out"), replace(found, noise_multiplier=1.0026)
    )
    assert allowed.epsilon >= 5.77


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"strategy": {**NOISY, "noise_multiplier": None}}, "strategy.noise_multiplier", "target_epsilon is not given"),
        ({"privacy": {"target_epsilon": 0.5}}, "strategy.noise_multiplier", "above privacy.target_epsilon, 0.5"),
        ({"strategy": {"kind": "fedavg"}, "privacy": {"target_epsilon": 8.0}}, "privacy.target_epsilon", "no noise"),
        ({"strategy": {"kind": "fedavg"}, "privacy": {"adjacency": "replace"}}, "privacy.adjacency", "no noise"),
        ({"privacy": {"delta": 0.2}}, "privacy.delta", "use less than 1/5"),
        ({"strategy": {"kind": "dp_fedavg"}}, "strategy.expected_cohort_size", "write expected_cohort_size: 2.5"),
        ({"sampler": {"kind": "by_size", "size": 2}}, "sampler", "use poisson, uniform or everyone"),
        ({"sampler": {"kind": "oort", "size": 2}, "roster": "pilot"}, "sampler", "who takes part tells of their data"),
        ({"sampler": {"kind": "dropout", "sampler": {"kind": "by_size", "size": 2}}}, "sampler", "picks clients by"),
        (
            {"sampler": {"kind": "uniform", "size": 2}, "privacy": {"adjacency": "add_remove"}},
            "privacy.adjacency",
            "not defined",
        ),
        ({"cohort_by": "strategy"}, "cohort_by", "how strategy dp_fedavg would pick clients is not known"),
    ],
)
def test_what_promises_nothing_is_refused(changes: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        private(**changes)
    found = {problem.path: problem.message for problem in error.value.problems}
    assert message in found[path]


def mechanism_of(
    strategy: Any, sampler: Sampler, adjacency: str | None = None, clients: int = 10, rounds: int = 1
) -> Releases:
    """What a strategy guarantees, without a scenario around it."""
    chosen = SimpleNamespace(delta=1e-5, adjacency=adjacency)
    (one,) = mechanisms.mechanisms(strategy, (), sampler, chosen, clients, rounds)
    return one.releases


SMALL = DpFedAvg(expected_cohort_size=1)
CYCLIC, SPACED = Cyclic(size=1), MinSeparation(size=1, separation=1)
DISPLACING = [CYCLIC, SPACED, Availability(size=1, arrive=1.0, leave=0.0), Dropout(sampler=Uniform(size=1), rate=0.0)]


@pytest.mark.parametrize("sampler", [*DISPLACING, OneOf(samplers=(Everyone(), CYCLIC)), Outspoken()], ids=kind_of)
@pytest.mark.parametrize("strategy", [SMALL, DpAdaptive(expected_cohort_size=1)], ids=kind_of)
def test_one_client_more_is_no_neighbour_where_it_takes_the_place_of_another(
    strategy: ServerRule, sampler: Sampler
) -> None:
    """All others send minus the clip, an eleventh client the clip: 4.377 was printed."""
    more = (((10 / 11, -1.0), (1 / 11, 1.0)), ((1.0, -1.0),))
    assert epsilon_at_least([(more, 1.0, 1)], 1e-5, 1e-4) == pytest.approx(6.431, abs=2e-3)
    assert mechanism_of(strategy, sampler).adjacency == "zero_out"
    with pytest.raises(ComponentError, match=r"add_remove with .* is not defined: one client more would change"):
        mechanism_of(strategy, sampler, "add_remove")


@pytest.mark.parametrize("sampler", [Poisson(rate=0.1), Everyone(), Dropout(sampler=Poisson(rate=0.1)), Dropout()])
def test_one_client_more_is_a_neighbour_where_it_changes_nothing_for_the_others(sampler: Sampler) -> None:
    assert mechanism_of(SMALL, sampler).adjacency == mechanism_of(SMALL, sampler, "add_remove").adjacency
    assert mechanism_of(SMALL, sampler).adjacency == "add_remove"


class NoNoise:
    """A generator of zeros."""

    def standard_normal(self, shape: tuple[int, ...]) -> FloatArray:
        return np.zeros(shape)


def released(strategy: DpAdaptive, update: list[float] | None) -> FloatArray:
    """What one client adds to the two sums of dp_adaptive, in standard deviations of their noise; None: it is away."""
    before = {"w": torch.zeros((1, 2), dtype=torch.float64)}
    there = torch.full((1, 1), update is not None)
    sent = {"w": torch.tensor([[[0.0, 0.0] if update is None else update]], dtype=torch.float64)}
    who = torch.zeros((1, 1), dtype=torch.long)
    silence: Any = NoNoise()
    one = Round(
        number=1, before=before, sent=sent, weights=there.double(), present=there, clients=who,
        generators=lambda: (silence,),
    )  # fmt: skip
    after, state = strategy.rule(strategy.state(before, 1), one)
    moved = after["w"][0].numpy() * strategy.expected_cohort_size / strategy.initial_clip
    share = strategy.quantile - 0.5 - math.log(float(state["clip"][0]) / strategy.initial_clip) / strategy.rate
    out: FloatArray = np.r_[
        moved / noise_of_updates(strategy), share * strategy.expected_cohort_size / noise_of_bits(strategy)
    ]
    return out


@pytest.mark.parametrize(("bit_noise", "zero"), [(None, 4.836), (0.51, 9.817)])
def test_the_empty_place_of_a_client_is_no_update_of_zero(bit_noise: float | None, zero: float) -> None:
    """The bit of a zero update is 1 away from that of a long one, that of nobody 1/2: 4.377 holds for nobody alone."""
    strategy = DpAdaptive(initial_clip=1.0, expected_cohort_size=10, bit_noise=bit_noise)
    long, nothing, nobody, back = (released(strategy, one) for one in ([5.0, 0.0], [0.0, 0.0], None, [-1.0, 0.0]))
    printed = {name: guarantee_of(mechanism_of(strategy, Everyone(), name)).epsilon for name in ("zero_out", "replace")}
    true = {
        "nobody": gaussian_epsilon(float(np.linalg.norm(long - nobody)), 1e-5),
        "zero": gaussian_epsilon(float(np.linalg.norm(long - nothing)), 1e-5),
        "other": gaussian_epsilon(float(np.linalg.norm(long - back)), 1e-5),
    }
    assert true["nobody"] == pytest.approx(printed["zero_out"]) == pytest.approx(4.377, abs=1e-3)
    assert true["zero"] == pytest.approx(zero, abs=2e-3)
    assert printed["zero_out"] < true["zero"] < true["other"] == pytest.approx(printed["replace"])
    # the words of the setting, of the glossary and of the page are those of the neighbour that the number is for
    words = present(Privacy.model_fields["adjacency"].description)
    assert "one that sends nothing" in words
    assert "place stays empty" in dict(terms_of(shipped_measures()))["zero_out"]


def test_probabilities_are_no_declaration() -> None:
    """All send the clip. Rows of one client decide whether the sum is always 5, or 0 or 10: 9.997 was printed."""
    together = (((0.5, 0.0), (0.5, 10.0)), ((1.0, 5.0),))
    assert epsilon_at_least([(together, 1.0, 1)], 1e-5, 1e-3) >= 32.41
    sampler, strategy = Together(), DpFedAvg(expected_cohort_size=5)
    rows = [np.full(10, 50), np.r_[200, np.full(9, 50)]]
    sizes = [{len(sampler.cohort(1, History.start(one), np.random.default_rng(s))) for s in range(20)} for one in rows]
    assert sizes == [{5}, {0, 10}]
    for part in (sampler, Dropout(sampler=sampler), OneOf(samplers=(Uniform(size=5), sampler))):
        with pytest.raises(ComponentError, match=r"nothing is known of how tests\.toys:Together picks"):
            mechanism_of(strategy, part, "replace")
    assert mechanism_of(strategy, OneOf(samplers=(Uniform(size=5), Everyone())), "replace").sampling == "everyone"
    with pytest.raises(ComponentError, match="picks clients by what they hold"):
        mechanism_of(strategy, OneOf(samplers=(Uniform(size=5), BySize(size=5))), "replace")


def test_a_sampler_of_ones_own_is_credited_only_where_it_declares_what_it_reads() -> None:
    """Nothing is known of one that does not say how it picks: it might look at rows."""
    tree = {"kind": "dp_ftrl", "expected_cohort_size": 2.0}
    for strategy in (NOISY, tree):
        for name, said in [
            ("Silent", "nothing is known of how tests.toys:Silent picks"),
            ("Curious", "tells of their data"),
        ]:
            for sampler in (
                {"kind": f"tests.toys:{name}"},
                {"kind": "dropout", "sampler": {"kind": f"tests.toys:{name}"}},
            ):
                with pytest.raises(ScenarioError, match=said):
                    private(sampler=sampler, strategy=strategy)
    with pytest.raises(ScenarioError, match="tells of their data"):
        private(sampler={"kind": "tests.toys:Curious", "by": "atypical"})
    found = only(private(sampler={"kind": "tests.toys:Outspoken"}))
    assert (found.sampling, found.rate, found.count) == ("everyone", 1.0, 4)
    assert only(private(sampler={"kind": "tests.toys:Outspoken"}, strategy=tree)).sampling == "tree"
    # without noise nothing is promised, so anything goes
    assert not spending.of_scenario(private(sampler={"kind": "tests.toys:Silent"}, strategy={"kind": "fedavg"}))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"strategy": {"kind": "qfedavg"}}, "strategy"),
        ({"sampler": {"kind": "oort", "size": 2}, "roster": "pilot"}, "sampler"),
    ],
)
def test_losses_of_private_clients_have_no_noise_and_are_read_by_nobody(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ScenarioError, match=f"{path}: .* reads the losses of clients, which have no noise"):
        tiny(client={"kind": "dp_sgd"}, **changes)
    tiny(**changes)


def test_a_cap_makes_the_divisor_a_choice() -> None:
    assert only(private(strategy={**NOISY, "expected_cohort_size": 1.0, "cap": 20})).noise_multiplier == 1


def test_clients_that_add_noise_themselves_hide_from_the_server() -> None:
    defences = [{"kind": "clip", "norm": 2.0}, {"kind": "noise", "norm": 2.0, "multiplier": 3.0}]
    found = only(tiny(defences=defences))
    assert (found.sampling, found.adjacency, found.unit, found.noise_multiplier) == ("everyone", "replace", "client", 3)
    assert guarantee_of(found).epsilon == pytest.approx(
        guarantee_of(replace(found, adjacency="add_remove", noise_multiplier=1.5)).epsilon
    )
    # noise without a clip before it bounds nothing
    assert not spending.of_scenario(tiny(defences=defences[1:]))
    assert not spending.of_scenario(tiny(defences=defences[:1]))


def test_without_credit_each_client_pays_for_its_own_rounds() -> None:
    scenario = private(sampler={"kind": "cyclic", "size": 2}, strategy={**NOISY, "expected_cohort_size": 2.0}, rounds=4)
    there = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (0, 3), (1, 4), (2, 4)]
    parts = [
        Participation(run=run, round=round_number, client=client, num_examples=5, failed=False)
        for client, round_number in there
        for run in (0, 1)
    ]
    bank: Any = SimpleNamespace(participation=parts)
    rows = list(spending.epsilon_rows(scenario, bank))
    own = {row.client: row.reading for row in rows if row.round == FINAL}
    assert {client: reading.n for client, reading in own.items()} == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}
    one = guarantee_of(replace(only(scenario), count=1)).epsilon
    assert own[3].value == one < own[0].value
    assert all(row.reading.labels.get("adjacency") == "zero_out" for row in rows)
    last = next(row for row in rows if row.round == 4)
    assert (last.client, last.reading.n, last.level) == (EVERYWHERE, 4, "global")
    assert last.reading.value > own[0].value


def test_a_run_says_what_it_promises(tmp_path: Path) -> None:
    folder = run(private(estimators=[], probes=[{"kind": "utility"}]), out=tmp_path)
    finished = fedmem.read(folder)
    (told,) = finished.manifest["privacy"]["mechanisms"]
    assert told["epsilon"] == guarantee_of(only(private())).epsilon == min(told["bounds"].values())
    rows = finished.measurements[finished.measurements.source == "privacy"]
    assert rows["round"].tolist() == [2, 4]
    assert rows.value.is_monotonic_increasing
    assert rows.value.iloc[-1] == told["epsilon"]
    about = rows.iloc[0]
    assert (about["part"], about["unit"], about["adjacency"]) == ("strategy", "client", "add_remove")
    assert (about["sampling"], about["rate"], about["delta"]) == ("poisson", 0.5, 1e-5)
    before = finished.measurements
    # what an earlier version stored is replaced when it is measured again
    stored = json.loads((folder / "manifest.json").read_text())
    wrong = {**told, "epsilon": 0.1}
    changed = {**stored, "privacy": {**stored["privacy"], "mechanisms": [wrong]}, "alarms": ["audit of x: old", "kept"]}
    (folder / "manifest.json").write_text(json.dumps(changed))
    measure(folder)
    assert fedmem.read(folder).measurements.equals(before)
    again = fedmem.read(folder).manifest
    assert again == {**stored, "alarms": ["kept"]}
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(folder))
    assert "PRIVACY" in captured.get()
    assert "client, add_remove" in captured.get()


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [(0.0001, "0.0001"), (0.0343, "0.034"), (0.0, "0.00"), (11.476, "11.48"), (1234.5, "1234.50"), (math.inf, "∞")],
)
def test_a_small_epsilon_is_never_shown_as_nothing(epsilon: float, said: str) -> None:
    assert _epsilon(epsilon) == said


def test_a_check_says_what_is_promised(tmp_path: Path) -> None:
    file = tmp_path / "private.yaml"
    chosen = private(strategy={**NOISY, "noise_multiplier": None}, privacy={"target_epsilon": 8.0})
    file.write_text(chosen.to_yaml())
    said = " ".join(plan_text(check_file(file)).split())
    found = guarantee_of(only(chosen))
    assert f"privacy strategy, against the server's models: epsilon {found.epsilon:.4g} at delta 1e-05" in said
    assert f"{found.accountant}; unit client, add_remove, poisson" in said
    assert f"noise multiplier {found.releases.noise_multiplier:.4g}" in said
    assert "target_epsilon 8" in said
    file.write_text(tiny().to_yaml())
    assert "epsilon" not in plan_text(check_file(file))
    file.write_text(private(client={"kind": "dp_sgd", "lr": 0.1}, strategy={"kind": "fedavg"}).to_yaml())
    assert "client, against the updates that clients send: at most epsilon" in " ".join(
        plan_text(check_file(file)).split()
    )
