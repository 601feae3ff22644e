"""One battery for every strategy in the folder: the rule against the messages, and what any aggregation must keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp import strategy as flwr_strategy

from fedmem.contracts.strategy import strategy_declaration
from fedmem.engines._flower import in_process
from fedmem.strategies._rule import Round, RuleStrategy
from fedmem.strategies.bulyan import Bulyan
from fedmem.strategies.centred_clipping import CentredClipping
from fedmem.strategies.dp_adaptive import DpAdaptive
from fedmem.strategies.dp_fedavg import DpFedAvg
from fedmem.strategies.dp_ftrl import DpFtrl
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fedavgm import FedAvgM
from fedmem.strategies.feddyn import FedDyn
from fedmem.strategies.fedexp import FedExP
from fedmem.strategies.fednova import FedNova
from fedmem.strategies.fedprox import FedProx
from fedmem.strategies.foolsgold import FoolsGold
from fedmem.strategies.geometric_median import GeometricMedian
from fedmem.strategies.krum import Krum
from fedmem.strategies.multikrum import MultiKrum
from fedmem.strategies.norm_clipping import NormClipping
from fedmem.strategies.qfedavg import QFedAvg
from fedmem.strategies.rotate import Rotate
from fedmem.strategies.scaffold import Scaffold
from fedmem.strategies.sign_majority import SignMajority
from fedmem.strategies.trimmed_mean import TrimmedMean
from fedmem.strategies.typicality import Typicality
from tests.cohorts import SHAPES, by_messages, by_rule, cohort, every_strategy, flat, models, one_round, stacked

EVERY = every_strategy()

# settings that take another path through a rule than the defaults
RULES = [strategy for strategy in EVERY.values() if strategy_declaration(strategy).rule is not None]
RULES += [
    FedAvg(weighting="uniform"),
    FedExP(weighting="size"),
    FedAvgM(momentum=0.0),
    FedAvgM(momentum=0.0, server_lr=0.5),
    FedAvgM(momentum=0.5, server_lr=0.7),
    FedProx(mu=0.0),
    FedNova(client_momentum=0.9),
    Scaffold(server_lr=0.7),
    FedDyn(alpha=2.0),
    QFedAvg(q=0.0),
    QFedAvg(q=3.0),
    Bulyan(f=0),
    CentredClipping(radius=0.5, iterations=3),
    FoolsGold(kappa=0.5),
    DpFedAvg(noise_multiplier=0.0),
    DpFedAvg(clip=100.0, cap=50, expected_cohort_size=3.5),
    DpAdaptive(noise_multiplier=0.0, initial_clip=5.0),
    DpFtrl(noise_multiplier=0.0),
    DpFtrl(momentum=0.9, server_lr=0.5, cap=50),
    DpFtrl(honaker=False, restart=2),
    GeometricMedian(weighting="size"),
    Krum(f=1),
    MultiKrum(f=1, keep=3),
    NormClipping(radius=0.5, weighting="size"),
    Rotate(rest=0),
    Rotate(rest=1),
    SignMajority(server_lr=0.1),
    TrimmedMean(beta=0.0),
    TrimmedMean(beta=0.4),
    Typicality(beta=0.0),
    Typicality(beta=-3.0),
]
every_rule = pytest.mark.parametrize("strategy", RULES, ids=str)

MEANS = ("fedavg", "fedprox", "fedavgm", "fedexp", "qfedavg", "typicality", "rotate")
"""Kinds that any client can move as far as it likes."""

UNLIKE = ("foolsgold",)
"""Kinds in which clients that send the same have no weight; any other can move the model as far as it likes."""

WITHIN = ("fedmedian", "trimmed_mean", "krum", "multikrum", "bulyan")
"""Kinds whose every coordinate lies within the range of the others, given one wild client of nine."""

NEAR = ("geometric_median", "centred_clipping", "norm_clipping", "sign_majority")
"""Kinds that bound how far one client moves the model."""

CORRECTED = ("fednova", "scaffold", "feddyn")
"""Kinds that any client can move, but further or less far than its own update goes."""

FREE = ("fedadam", "fedyogi", "fedadagrad")
"""Kinds whose step has a length of its own."""

NOISY = ("dp_fedavg", "dp_adaptive", "dp_ftrl")
"""Kinds that add noise to what they publish: tests/strategies/test_private.py, tests/strategies/test_dp_ftrl.py."""


def robust(kind: str) -> Any:
    """The kind, set to resist one client of nine."""
    return {"krum": Krum(f=1), "multikrum": MultiKrum(f=1)}.get(kind, EVERY[kind])


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_groups_name_shipped_kinds_and_each_of_them_once() -> None:
    """A kind that is in no group is held to what all have to do."""
    groups = [*MEANS, *UNLIKE, *WITHIN, *NEAR, *CORRECTED, *FREE, *NOISY]
    assert set(groups) <= set(EVERY)
    assert len(groups) == len(set(groups))


# --- two paths --------------------------------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_rule_on_three_runs_equals_the_messages_of_each(strategy: Any, count: int) -> None:
    rng = np.random.default_rng(count)
    before = models(rng, 3)
    rounds = [[cohort(rng, count) for _ in range(3)] for _ in range(3)]
    together = by_rule(strategy, rounds, before)
    for run in range(3):
        alone = by_messages(strategy, [there[run] for there in rounds], before[run], run=run)
        for stack, single in zip(together, alone, strict=True):
            for name in SHAPES:
                assert single[name].dtype == stack[name].dtype == torch.float32
                assert torch.equal(stack[name][run], single[name])


@every_rule
def test_clients_without_introduction_keep_their_state(strategy: Any) -> None:
    rng = np.random.default_rng(10)
    rounds, before = [cohort(rng, 3) for _ in range(4)], models(rng, 1)[0]
    known, unknown = (by_messages(strategy, rounds, before, introduced=here) for here in (True, False))
    assert all(
        torch.equal(one[name], other[name]) for one, other in zip(known, unknown, strict=True) for name in SHAPES
    )


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian", "FedAvgM"])
def test_the_rule_agrees_with_flowers_class(name: str) -> None:
    """The message path of these is Flower's class, which the first test compares with the rule, bit for bit."""
    assert type(EVERY[name.lower()].make(4)) is getattr(flwr_strategy, name)


@every_rule
def test_server_payload_of_a_client_is_independent_of_others(strategy: Any) -> None:
    before = {name: torch.ones((1, *shape)) for name, shape in SHAPES.items()}
    state = strategy.state(before, 5)
    together = strategy.payload(state, torch.tensor([[4, 1, 3]]))
    alone = strategy.payload(state, torch.tensor([[1]]))
    assert set(together) == set(alone)
    for name, value in together.items():
        assert value.shape[:2] == (1, 3)
        assert torch.equal(value[:, 1:2], alone[name])


# --- who is there -----------------------------------------------------------------------------------------------------


@every_rule
def test_permuting_the_cohort_changes_nothing(strategy: Any) -> None:
    rng = np.random.default_rng(0)
    before, rounds = models(rng, 1), [cohort(rng, 5), cohort(rng, 5)]
    one = by_rule(strategy, [[there] for there in rounds], before)
    other = by_rule(strategy, [[there.at([4, 2, 0, 3, 1])] for there in rounds], before)
    for name in SHAPES:
        torch.testing.assert_close(one[-1][name], other[-1][name], rtol=1e-5, atol=1e-6)


@every_rule
@pytest.mark.parametrize("absent", [(3,), (0,), (1, 2), (0, 2, 3)])
def test_absent_clients_do_not_count(strategy: Any, absent: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    there, before = cohort(rng, 4), {name: value[None] for name, value in models(rng, 1)[0].items()}
    left = [k for k in range(4) if k not in absent]
    whole, alone = stacked(1, [there], before), stacked(1, [there.at(left)], before)
    present = torch.tensor([[k in left for k in range(4)]])
    silent = {name: torch.where(present, value, torch.nan) for name, value in whole.report.items()}
    masked = replace(whole, present=present, clients=torch.where(present, whole.clients, -1), report=silent)
    state = strategy.state(before, 9)
    one, one_state = strategy.rule(state, masked)
    other, other_state = strategy.rule(state, alone)
    for name in SHAPES:
        assert torch.equal(one[name], other[name])
    assert set(one_state) == set(other_state)
    for name, value in one_state.items():
        assert torch.equal(value, other_state[name])


@every_rule
def test_run_without_clients_keeps_shapes_and_finite_values(strategy: Any) -> None:
    """Beside runs that have a cohort; the engine keeps the model and the state of such a run."""
    rng = np.random.default_rng(8)
    before = {name: torch.stack([m[name] for m in models(rng, 2)]) for name in SHAPES}
    sent = {name: value[:, None].repeat(1, 2, *(1,) * (value.ndim - 1)) for name, value in before.items()}
    present = torch.tensor([[True, True], [False, False]])
    clients = torch.tensor([[0, 1], [-1, -1]])
    told = {name: torch.where(present, 1.0, torch.nan).double() for name in ("loss", "steps", "lr")}
    round_number = Round(
        number=1, before=before, sent=sent, weights=present.double(), present=present, clients=clients, report=told
    )
    state = strategy.state(before, 3)
    strategy.payload(state, clients)
    after, later = strategy.rule(state, round_number)
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert torch.isfinite(after[name][0]).all()
    assert {name: value.shape for name, value in later.items()} == {name: v.shape for name, v in state.items()}


@pytest.mark.parametrize("kind", [*MEANS, *UNLIKE, *WITHIN, "geometric_median"])
def test_one_client_alone_is_followed(kind: str) -> None:
    """In its direction; `qfedavg` goes less far where its update is long."""
    rng = np.random.default_rng(9)
    before, there = models(rng, 1)[0], cohort(rng, 1)
    strategy = QFedAvg(q=0.0) if kind == "qfedavg" else EVERY[kind]
    np.testing.assert_allclose(flat(one_round(strategy, there, before)), flat(there.sent[0]), rtol=1e-5, atol=1e-6)


# --- what is done with it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MEANS, *WITHIN, "geometric_median"])
def test_identical_models_come_back_unchanged(kind: str) -> None:
    rng = np.random.default_rng(1)
    model, there = models(rng, 1)[0], cohort(rng, 4)
    strategy = QFedAvg(q=0.0) if kind == "qfedavg" else EVERY[kind]
    after = one_round(strategy, there.sending([model] * 4), models(rng, 1)[0])
    np.testing.assert_allclose(flat(after), flat(model), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "strategy", [rule for rule in RULES if not strategy_declaration(rule).noise_multiplier], ids=str
)
def test_clients_that_change_nothing_change_nothing(strategy: Any) -> None:
    rng = np.random.default_rng(2)
    # of equal sizes, so that their mean is exact: an adaptive server makes much of what rounding leaves
    model, there = models(rng, 1)[0], replace(cohort(rng, 4), sizes=[8] * 4)
    after = one_round(strategy, there.sending([model] * 4), model)
    np.testing.assert_allclose(flat(after), flat(model), rtol=1e-6, atol=1e-7)


@every_rule
def test_shifting_all_models_shifts_the_aggregate_equally(strategy: Any) -> None:
    rng = np.random.default_rng(2)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    plain = one_round(strategy, there, before)
    moved = there.sending([{name: value + 3.0 for name, value in model.items()} for model in there.sent])
    shifted = one_round(strategy, moved, {name: value + 3.0 for name, value in before.items()})
    np.testing.assert_allclose(flat(shifted), flat(plain) + 3.0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", WITHIN)
def test_one_wild_client_does_not_leave_the_range_of_the_others(kind: str) -> None:
    rng = np.random.default_rng(3)
    before, there = models(rng, 1)[0], cohort(rng, 9)
    for sign in (1e6, -1e6):
        wild = [*there.sent[:8], {name: torch.full_like(v, sign) for name, v in there.sent[8].items()}]
        after = flat(one_round(robust(kind), there.sending(wild), before))
        others = np.stack([flat(model) for model in there.sent[:8]])
        assert np.all((after >= others.min(0) - 1e-6) & (after <= others.max(0) + 1e-6))


@pytest.mark.parametrize(
    ("strategy", "bound"),
    [
        # of nine replaced by another: both may have been as long as they are allowed to be
        (NormClipping(radius=2.0), 2 * 2.0 / 9),
        (CentredClipping(radius=2.0), 2 * 2.0 / 9),
        (CentredClipping(radius=0.5, iterations=4), 4 * 2 * 0.5 / 9),
        (SignMajority(server_lr=0.1), 2 * 0.1 * 15**0.5),
        # twice the way from the aggregate of the others to the farthest of them, by theory, with one ninth wild
        (GeometricMedian(), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("sign", [1e6, -1e6])
def test_one_outlier_moves_robust_aggregates_within_the_bound(strategy: Any, bound: Any, sign: float) -> None:
    rng = np.random.default_rng(5)
    before, rounds = models(rng, 1), [cohort(rng, 9) for _ in range(3)]
    # from the same start in the last round, so that only one replacement is compared
    honest = [[there] for there in rounds]
    last = rounds[-1]
    wild = last.sending([*last.sent[:8], {name: torch.full_like(v, sign) for name, v in last.sent[8].items()}])
    one, other = by_rule(strategy, honest, before)[-1], by_rule(strategy, [*honest[:-1], [wild]], before)[-1]
    gap = float(np.linalg.norm(flat(one) - flat(other)))
    assert gap > 0
    if bound is not None:
        assert gap <= bound * (1 + 1e-5)
    else:
        centre = np.mean([flat(model) for model in last.sent[:8]], axis=0)
        radius = max(float(np.linalg.norm(flat(model) - centre)) for model in last.sent[:8])
        assert float(np.linalg.norm(flat(other) - centre)) <= 2 * (8 / 9) / (7 / 9) * radius


@pytest.mark.parametrize("kind", [*MEANS, *UNLIKE, *CORRECTED])
def test_the_others_are_moved_away_by_it(kind: str) -> None:
    """So the test above can fail."""
    rng = np.random.default_rng(3)
    before, there = models(rng, 1)[0], cohort(rng, 9)
    strategy = QFedAvg(q=0.0) if kind == "qfedavg" else EVERY[kind]
    wild = [*there.sent[:8], {name: torch.full_like(v, 1e6) for name, v in there.sent[8].items()}]
    assert np.abs(flat(one_round(strategy, there.sending(wild), before))).min() > 1e3


def test_one_wild_client_moves_the_mean_by_its_share() -> None:
    rng = np.random.default_rng(3)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    wild = [*there.sent[:4], {name: torch.full_like(v, 1e6) for name, v in there.sent[4].items()}]
    of_size = there.sizes[4] / sum(there.sizes)
    for mean, part in ((FedAvg(weighting="size"), of_size), (FedAvg(weighting="uniform"), 0.2)):
        gap = flat(one_round(mean, there.sending(wild), before)) - flat(one_round(mean, there, before))
        np.testing.assert_allclose(gap, part * (1e6 - flat(there.sent[4])), rtol=1e-4)


# --- arrays that are no weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [r for r in RULES if type(r.make(3)) is RuleStrategy and not strategy_declaration(r).noisy], ids=str
)
def test_counters_and_statistics_stay_what_they_are(strategy: Any) -> None:
    """Where the message path is Flower's own class it is another matter: tests/engines/test_flower_traps.py."""
    rng = np.random.default_rng(4)
    there, before = cohort(rng, 3), models(rng, 1)[0]

    def with_norm(model: Any, count: int, variance: float) -> Any:
        extra = {
            "norm.num_batches_tracked": torch.tensor(count),
            "norm.running_var": torch.tensor([variance, 1.0]),
            "mask": torch.tensor([count > 6, True]),
            "table": torch.full((2, 2), count, dtype=torch.int32),
        }
        return {**model, **extra}

    known = zip(there.sent, (5, 9, 7), (0.5, 1e6, 0.1), strict=True)
    full = there.sending([with_norm(model, count, variance) for model, count, variance in known])
    after = by_messages(strategy, [full], with_norm(before, 4, 0.3))[0]
    assert after["norm.num_batches_tracked"].dtype == torch.int64
    assert after["norm.num_batches_tracked"].item() == 7
    assert after["norm.running_var"].tolist() == [0.5, 1.0]
    assert after["mask"].tolist() == [True, True]
    assert after["table"].dtype == torch.int32
    assert after["table"].tolist() == [[7, 7], [7, 7]]
    plain = by_messages(strategy, [there], before)[0]
    assert all(torch.equal(after[name], plain[name]) for name in SHAPES)
