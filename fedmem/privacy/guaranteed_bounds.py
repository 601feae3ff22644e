"""The guarantees of a scenario for its audit examples, compared with audits and with every measure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.client import ClientAlgorithm, PersonalClient, PrivateAlgorithm
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.estimator import EpsilonAudit, Estimator
from fedmem.contracts.evidence import Bank
from fedmem.contracts.families import kind_of
from fedmem.contracts.injection import Injection
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.contracts.needs import measures_of
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.sampler import Sampler
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import ComponentError, Problem
from fedmem.privacy.accounting import Adjacency, Releases
from fedmem.privacy.amplification import canaries
from fedmem.privacy.coverage import reads_sizes
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.privacy.guarantee import Guarantee
from fedmem.privacy.mechanisms import Mechanism, adds_noise
from fedmem.privacy.spending import SOURCE, neighbours, of_records, of_scenario, participations, permitted_row

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

PERMITTED = "epsilon_hat.permitted"
"""The guarantee for the neighbours that an audit compared, at its delta."""


@dataclass(frozen=True, kw_only=True)
class StrongestGuarantee:
    """The strongest guarantee for some audit examples, and the part of the scenario that gives it."""

    part: str
    guarantee: Guarantee


def guarantees_of_audits(scenario: Scenario, bank: Bank, rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """The guarantee to compare with, for every bound of an audit at the last round; nothing where there is none.

    - a record of a client that is protected as a whole has other data in its place, for all copies at once;
    - participation is known where runs share a roster, so that bounds over runs are compared with a guarantee without
      amplification by sampling;
    - an owner's own model has the noise of its own steps alone: no other part protects it.
    """
    guarantees = Guarantees(scenario=scenario, bank=bank)
    audits = list(_audits(scenario.estimators))
    for row in rows:
        estimator = next((audit for audit in audits if is_of(row, audit)), None)
        if estimator is None or row.reading.metric != "epsilon_hat" or row.round != scenario.rounds:
            continue
        reading = row.reading
        random_cohorts = estimator.method == "one_run" or bank.roster == "per_run"
        subjects = _subjects(bank.audit, reading.subject)
        allowed = guarantees.guarantee_to(subjects, row.level, estimator.delta, drawn=random_cohorts)
        if allowed is not None:
            value, labels = allowed.guarantee.epsilon, reading.labels.plus(part=allowed.part)
            yield replace(row, reading=replace(reading, metric=PERMITTED, value=value, labels=labels))


def of_canary_clients(scenario: Scenario, rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """The guarantee of the strategy for the same neighbours, for every estimate from canary clients at the last round.

    Nobody knows which canary clients participated, so that the guarantee has amplification by sampling.
    """
    for row in rows:
        reading = row.reading
        if reading.metric != ONE_SHOT or row.round != scenario.rounds:
            continue
        adjacency = cast("Adjacency", reading.labels.text("adjacency"))
        delta = reading.labels.number("delta")
        for mechanism in of_scenario(scenario):
            if mechanism.part == "strategy":
                guarantee = permitted_guarantee(
                    AuditedUnit(unit="client", adjacency=adjacency), replace(mechanism.releases, delta=delta)
                )
                beside = replace(reading, metric=f"{ONE_SHOT}.permitted", value=guarantee.epsilon)
                yield replace(row, source=SOURCE, reading=replace(beside, low=math.nan, high=math.nan))


ONE_SHOT = "epsilon_one_shot"
"""The metric of canary clients, by probe `canary_clients`."""


def bounds(scenario: Scenario, bank: Bank, rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """The largest value of each measure that the guarantee leaves possible, for the summary of every kind.

    Each measure that declares which member of `Guarantee` bounds it has such a value, as `<metric>.bound` with the same
    labels, at the scenario's delta. The epsilon behind these bounds is given once for each kind and level
    (`permitted_row`). There are no bounds where no guarantee covers the models that were read, and none of the exposure
    of secrets that people wrote. Means over examples are bounded by the worst of them. Participation is known to the
    adversary: runs share a roster, and the summary reads rounds in which the owner participated.
    """
    guarantees = Guarantees(scenario=scenario, bank=bank)
    bounded = {measure.name: measure for part in scenario.estimators for measure in measures_of(part) if measure.bound}
    named: set[tuple[str, str]] = set()
    for row in rows:
        reading = row.reading
        place = (row.level, reading.labels.text("place"))
        is_final = row.scope == "summary" and place in (("global", ""), ("local", "owner"))
        if not is_final or reading.metric not in bounded or reading.subject not in bank.audit.kinds:
            continue
        subjects = np.flatnonzero(bank.audit.kind == reading.subject)
        allowed = guarantees.guarantee_to(subjects, row.level, scenario.privacy.delta, drawn=bank.roster == "per_run")
        if allowed is not None:
            if (row.level, reading.subject) not in named:
                named.add((row.level, reading.subject))
                yield permitted_row(row, allowed.part, allowed.guarantee, *neighbours(bank, subjects))
            if bounded[reading.metric].bound == "exposure" and reading.subject in bank.audit.not_uniform:
                continue  # ranks that are high without the record have no bound
            largest = _largest_value(bounded[reading.metric], reading, allowed.guarantee, bank, subjects)
            bound = replace(reading, metric=f"{reading.metric}.bound", value=largest, low=math.nan, high=math.nan)
            yield replace(row, source=SOURCE, reading=bound)


def _largest_value(measure: Measure, reading: Reading, guarantee: Guarantee, bank: Bank, subjects: IntArray) -> float:
    """The largest value of a measure under a guarantee."""
    if measure.bound == "exposure":
        return guarantee.exposure(
            max(ranks.count for ranks in bank.references if np.isin(subjects, ranks.subjects).any())
        )
    if measure.bound == "tpr":
        return float(guarantee.tpr(reading.labels.number("fpr")))
    return guarantee.auc if measure.bound == "auc" else guarantee.memorisation


ALARM = "audit of "
"""How the alarms of audits begin."""


def alarms(scenario: Scenario, rows: Sequence[Measurement]) -> list[str]:
    """The bounds that exceed the guarantee, of the audit that may raise an alarm."""
    messages = []
    for estimator in _audits(scenario.estimators):
        if not estimator.alarm:
            continue
        audit_rows = [
            row for row in rows if row.round == scenario.rounds and row.reading.subject == estimator.example_kind
        ]
        audit_rows = [row for row in audit_rows if is_of(row, estimator)]
        values = {row.reading.metric: row.reading for row in audit_rows}
        if not {"epsilon_hat", PERMITTED} <= set(values):
            continue
        proven, limit = values["epsilon_hat"], values[PERMITTED]
        if proven.value > limit.value:
            messages.append(
                f"{ALARM}{estimator.example_kind}: epsilon is at least {proven.value:.4g} (confidence "
                f"{estimator.confidence:g}, {proven.n} trials; {limit.labels}), but the guarantee is "
                f"{limit.value:.4g}; the noise, the clipping or the accounting is wrong"
            )
    return messages


@dataclass(frozen=True, kw_only=True)
class Guarantees:
    """The guarantees of a scenario for its audit examples, from how often each client participated."""

    scenario: Scenario
    bank: Bank

    @cached_property
    def _participations(self) -> Mapping[int, int]:
        return participations(self.bank, self.scenario.rounds)

    @cached_property
    def _model_mechanisms(self) -> tuple[Mechanism, ...]:
        return of_scenario(self.scenario)

    @cached_property
    def _of_records(self) -> Mapping[int, Mechanism]:
        return of_records(self.scenario, self.bank, self.scenario.rounds)

    def guarantee_to(self, subjects: IntArray, level: Level, delta: float, *, drawn: bool) -> StrongestGuarantee | None:
        """The guarantee for these examples at this delta, against an adversary that reads models of a level.

        The smallest of the guarantees of the parts. `drawn` says whether participation stays secret. None where no part
        that protects such models adds noise. Under `exclusion: remove` nothing from guarantees that compare data sets
        with the same number of rows.
        """
        audit, record_mechanisms = self.bank.audit, self._of_records
        adjacency, copies = neighbours(self.bank, subjects)
        owners = [_owners_of(audit, subject) for subject in subjects.tolist()]
        clients = sorted({client for group in owners for client in group})
        max_participations = max((self._participations.get(client, 0) for client in clients), default=0)
        allowed = []
        for mechanism in self._model_mechanisms if level == "global" else ():
            if mechanism.same_rows and adjacency == "add_remove":
                continue
            # a client is protected as a whole, however many copies it has; clients that share an example are a group,
            # and so are the owners of examples that are in or out together
            group = max(map(len, owners), default=1)
            releases = _releases_given_roster(mechanism, max_participations, drawn)
            allowed.append(
                StrongestGuarantee(part=mechanism.part, guarantee=_guarantee_at(releases, adjacency, group, delta))
            )
        if record_mechanisms and adjacency != "add_remove":
            guarantees = [
                _guarantee_at(record_mechanisms[client].releases, adjacency, copies, delta)
                for client in clients
                if client in record_mechanisms
            ]
            # an owner that never took part has released nothing
            worst = max(guarantees, key=lambda bound: bound.epsilon, default=Guarantee(epsilon=0.0, delta=delta))
            allowed.append(StrongestGuarantee(part="client", guarantee=worst))
        return min(allowed, key=lambda entry: entry.guarantee.epsilon, default=None)


def problems(
    strategy: StrategyMaker,
    client: ClientAlgorithm,
    defences: Sequence[Defence],
    estimators: Sequence[Estimator],
    injections: Sequence[Injection],
    runs: int,
    exclusion: str,
    sampler: Sampler,
) -> Iterator[Problem]:
    """Problems of the audits of a scenario."""
    raising = [position for position, audit in enumerate(estimators) if isinstance(audit, EpsilonAudit) and audit.alarm]
    names = [injection.name for injection in injections]
    for position, audit in enumerate(estimators):
        if not isinstance(audit, EpsilonAudit):
            continue
        path = f"estimators[{position}]"
        if audit.example_kind and audit.example_kind not in names:
            names_text = ", ".join(dict.fromkeys(names)) or "none"
            yield Problem(
                path=f"{path}.example_kind",
                message=f"there are no audit examples {audit.example_kind!r}; choose from: {names_text}",
            )
        if audit.level == "sum":
            yield Problem(path=f"{path}.level", message="sums have no evidence that is kept; use global or local")
        if audit.method == "one_run" and audit.run >= runs:
            yield Problem(path=f"{path}.run", message=f"there is no run {audit.run}; use 0 to {runs - 1}")
        if audit.method == "over_runs" and runs < 4:
            yield Problem(
                path=f"{path}.method",
                message=f"over_runs has {runs // 2} trials with an example and as many without; raise runs, or use "
                "one_run",
            )
        if audit.alarm:
            yield from _may_raise(audit, path, position == raising[0], strategy, client, defences)
            noisy = any(map(_noise, defences)) and not reads_sizes(strategy, sampler)
            if isinstance(client, PrivateAlgorithm) or any(map(_noise, defences)):
                yield from _like_with_like(audit, path, adds_noise(strategy) or noisy, exclusion, client)


def canary_clients(
    strategy: StrategyMaker, sampler: Sampler, client: ClientAlgorithm, clients: int, probes: Sequence[Probe],
    levels: Sequence[str],
) -> Iterator[Problem]:  # fmt: skip
    """Problems of canary clients and of the probes that read them."""
    readers = [position for position, probe in enumerate(probes) if probe_declaration(probe).canary_clients]
    count = strategy_declaration(strategy).canary_clients
    if not count:
        for position in readers:
            yield Problem(path=f"probes[{position}]", message=_none_to_read(strategy, client))
        return
    if count == 1:
        yield Problem(
            path="strategy.canary_clients", message="a single one has no spread; use at least 2, better 100 or more"
        )
    if isinstance(client, PersonalClient):
        yield Problem(
            path="strategy.canary_clients",
            message=f"they push all parameters, but {kind_of(client)} keeps some at its clients, so no model has the "
            "movement of all. Use client sgd, or leave canary_clients out",
        )
    if not readers or "global" not in levels:
        yield Problem(
            path="strategy.canary_clients",
            message="no probe reads what they show; add {kind: canary_clients} to probes, and global to observe.levels",
        )
    try:
        canaries(strategy, sampler, clients, 0)
    except ComponentError as error:
        yield Problem(path=error.path, message=error.message)


def _none_to_read(strategy: StrategyMaker, client: ClientAlgorithm) -> str:
    """Why a scenario has no canary clients."""
    if strategy_declaration(strategy).canary_clients is not None:
        return f"there are none; give strategy {kind_of(strategy)} some, such as canary_clients: 200, or leave this out"
    why = f"strategy {kind_of(strategy)} has no guarantee for clients by clipping and noise"
    if isinstance(client, PrivateAlgorithm):
        why += f", and {kind_of(client)} hides records, which canary clients are not"
    return f"{why}; use dp_fedavg, dp_adaptive or dp_ftrl, with canary_clients: 200, or leave this out"


def _may_raise(
    audit: EpsilonAudit, path: str, first: bool, strategy: StrategyMaker, client: ClientAlgorithm,
    defences: Sequence[Defence],
) -> Iterator[Problem]:  # fmt: skip
    records = isinstance(client, PrivateAlgorithm)
    noisy = records or adds_noise(strategy) or any(_noise(defence) for defence in defences)
    if not first:
        yield Problem(
            path=f"{path}.alarm",
            message="another audit may raise the alarm already. Of several bounds, one is above the truth more often "
            "than each alone. Declare one, and leave alarm out here",
        )
    if not audit.example_kind:
        yield Problem(
            path=f"{path}.example_kind",
            message="an alarm is about one kind of audit example, declared beforehand; name it",
        )
    if not noisy:
        yield Problem(
            path=f"{path}.alarm",
            message="nothing here adds noise, so no epsilon is guaranteed that could be contradicted; use dp_fedavg, "
            "dp_sgd or the defence noise, or leave alarm out",
        )
    elif audit.level == "local" and not records:
        yield Problem(
            path=f"{path}.level",
            message="what a client holds is protected by no noise that is added later; use level: global, or client "
            "dp_sgd",
        )


def _like_with_like(
    audit: EpsilonAudit, path: str, whole: bool, exclusion: str, client: ClientAlgorithm
) -> Iterator[Problem]:
    """Refuse an alarm that compares n rows with n - 1 where all guarantees keep the number of rows.

    `whole` says whether some part protects a client whatever its number of rows.
    """
    if exclusion == "remove" and not (whole and audit.level == "global"):
        where = f"{kind_of(client)} guarantees nothing" if isinstance(client, PrivateAlgorithm) else "there is nothing"
        yield Problem(
            path=f"{path}.alarm",
            message=f"exclusion: remove compares n rows with n - 1, but {where} for such neighbours. The number of "
            "rows is used exactly (by sampling rates, steps or weights). Use exclusion: replace, or leave alarm out",
        )


def _noise(defence: Defence) -> bool:
    return defence_declaration(defence).gaussian_deviation is not None


def _audits(estimators: Sequence[Estimator]) -> Iterator[EpsilonAudit]:
    return (estimator for estimator in estimators if isinstance(estimator, EpsilonAudit))


def is_of(row: Measurement, estimator: EpsilonAudit) -> bool:
    """Whether a row is a bound of this audit, or about it."""
    if row.source != "audit" or row.level != estimator.level or row.run not in (None, estimator.run):
        return False
    return row.reading.labels.get("claim") == "bound" and row.reading.labels.has(estimator.labels_of_rows)


def _subjects(audit: AuditSet, subject: str) -> IntArray:
    """The examples that a subject names: all of a kind, or one by its number."""
    subjects = np.flatnonzero(audit.kind == subject)
    return subjects if len(subjects) else np.array([int(subject)])


def _owners_of(audit: AuditSet, subject: int) -> list[int]:
    owners = audit.owners[(audit.coin_groups == audit.coin_groups[subject])[audit.subject]]
    return sorted({int(client) for client in owners if client >= 0})


def _releases_given_roster(mechanism: Mechanism, max_participations: int, random_cohorts: bool) -> Releases:
    """The releases of a mechanism, without amplification by sampling where participation is known."""
    releases = mechanism.releases
    if random_cohorts or releases.sampling not in ("poisson", "fixed_size"):
        return releases
    return replace(releases, sampling="everyone", rate=1.0, count=max_participations)


@cache
def _guarantee_at(releases: Releases, adjacency: Adjacency, group: int, delta: float) -> Guarantee:
    """The guarantee for neighbours that differ in so many units, at a delta that is no larger than this one.

    The guarantee to one unit is taken at a delta that is small enough for the group's.
    """
    within = replace(releases, adjacency="replace") if releases.unit == "client" else releases
    single = delta
    for _ in range(50):
        guarantee = permitted_guarantee(AuditedUnit(unit="record", adjacency=adjacency), replace(within, delta=single))
        if math.isinf(guarantee.epsilon):
            break
        whole = guarantee.of_group(group)
        if whole.delta <= delta * (1 + 1e-9):
            return replace(whole, delta=delta)
        single = max(single * delta / whole.delta * 0.99, 1e-300)
    return Guarantee(epsilon=math.inf, delta=delta)
