"""What a scenario promises: who, by which part, at which epsilon, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.cli.plan_text import check_file, plan_text
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.families import kind_of
from fedmem.contracts.sampler import Sampler
from fedmem.errors import ComponentError, ScenarioError
from fedmem.privacy import spending
from fedmem.privacy.accounting import gaussian_epsilon, guarantee_of
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.reporting.measures import shipped_measures, terms_of
from fedmem.samplers.availability import Availability
from fedmem.samplers.cyclic import Cyclic
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.everyone import Everyone
from fedmem.samplers.min_separation import MinSeparation
from fedmem.samplers.poisson import Poisson
from fedmem.samplers.uniform import Uniform
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Privacy
from fedmem.strategies._rule import Round, ServerRule
from fedmem.strategies.dp_adaptive import DpAdaptive, noise_of_bits, noise_of_updates
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.narrowing import instance, present
from tests.neighbours import epsilon_at_least, opposed
from tests.privacy.mechanisms_helpers import NOISY, mechanism_of, only, private
from tests.tiny import tiny
from tests.toys import OneOf, Outspoken


def test_the_neighbours_asked_for() -> None:
    assert only(private(privacy={"adjacency": "replace"})).adjacency == "replace"
    assert not spending.of_scenario(tiny())
    nobody: Any = SimpleNamespace(participation=[])
    assert spending.spending_record(tiny(), nobody) is None


def test_too_little_bit_noise_for_the_target_is_an_error() -> None:
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


def test_fixed_size_noise_holds_for_clients_sending_the_opposite() -> None:
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
        ({"sampler": {"kind": "oort", "size": 2}, "roster": "pilot"}, "sampler", "participation leaks their data"),
        ({"sampler": {"kind": "dropout", "sampler": {"kind": "by_size", "size": 2}}}, "sampler", "picks clients by"),
        (
            {"sampler": {"kind": "uniform", "size": 2}, "privacy": {"adjacency": "add_remove"}},
            "privacy.adjacency",
            "not defined",
        ),
        ({"cohort_by": "strategy"}, "cohort_by", "how strategy dp_fedavg would pick clients is not known"),
    ],
)
def test_scenarios_without_a_valid_guarantee_are_refused(changes: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        private(**changes)
    found = {problem.path: problem.message for problem in error.value.problems}
    assert message in found[path]


SMALL = DpFedAvg(expected_cohort_size=1)
CYCLIC, SPACED = Cyclic(size=1), MinSeparation(size=1, separation=1)
DISPLACING = [CYCLIC, SPACED, Availability(size=1, arrive=1.0, leave=0.0), Dropout(sampler=Uniform(size=1), rate=0.0)]


@pytest.mark.parametrize("sampler", [*DISPLACING, OneOf(samplers=(Everyone(), CYCLIC)), Outspoken()], ids=kind_of)
@pytest.mark.parametrize("strategy", [SMALL, DpAdaptive(expected_cohort_size=1)], ids=kind_of)
def test_add_remove_is_refused_where_a_client_displaces_another(strategy: ServerRule, sampler: Sampler) -> None:
    """All others send minus the clip, an eleventh client the clip: 4.377 was printed."""
    more = (((10 / 11, -1.0), (1 / 11, 1.0)), ((1.0, -1.0),))
    assert epsilon_at_least([(more, 1.0, 1)], 1e-5, 1e-4) == pytest.approx(6.431, abs=2e-3)
    assert mechanism_of(strategy, sampler).adjacency == "zero_out"
    with pytest.raises(ComponentError, match=r"add_remove with .* is not defined: one client more would change"):
        mechanism_of(strategy, sampler, "add_remove")


@pytest.mark.parametrize("sampler", [Poisson(rate=0.1), Everyone(), Dropout(sampler=Poisson(rate=0.1)), Dropout()])
def test_add_remove_holds_where_other_clients_are_unaffected(sampler: Sampler) -> None:
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


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"strategy": {"kind": "qfedavg"}}, "strategy"),
        ({"sampler": {"kind": "oort", "size": 2}, "roster": "pilot"}, "sampler"),
    ],
)
def test_losses_of_dp_sgd_clients_may_not_be_read(changes: dict[str, Any], path: str) -> None:
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


def test_check_prints_the_privacy_guarantee(tmp_path: Path) -> None:
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
