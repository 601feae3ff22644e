"""Checks of what is measured: observed rounds, levels, probes and estimators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.injection import CanaryInjection, Injection, has_coins, injection_declaration
from fedmem.contracts.measure import Measure, differing_facts
from fedmem.contracts.needs import measures_of, needs_of
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.series import EVIDENCE, explain_uneven, step_of
from fedmem.contracts.signal import (
    AnySignal,
    quantities_in_parts,
    quantities_of,
    quantities_per_class,
    signal_declaration,
    without_class,
)
from fedmem.errors import Problem
from fedmem.scenario.catalogue import kinds, load
from fedmem.scenario.check_sets import level_unobserved
from fedmem.scenario.section import count_from_start

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.saving import Save


def _held_back(
    injections: Sequence[Injection], probes: Sequence[Probe], estimators: Sequence[Estimator], runs: int
) -> Iterator[Problem]:
    comparisons = [
        *(f"probe {kind_of(probe)}" for probe in probes if _compares_held_out(probe)),
        *(f"estimator {kind_of(estimator)}" for estimator in estimators if _compares_held_out(estimator)),
    ]
    positions = [position for position, injection in enumerate(injections) if injection_declaration(injection).unmasked]
    for position in positions if comparisons else ():
        yield Problem(
            path=f"injections[{position}].unmasked",
            message=f"the {comparisons[0]} compares with examples that are out at random, and copies that are never "
            f"masked are trained on all the same; write unmasked: 0, or leave the {comparisons[0].partition(' ')[0]} "
            f"out",
        )

    for position, injection in enumerate(injections if comparisons else ()):
        if not has_coins(injection, runs):
            yield Problem(
                path=f"injections[{position}].coins",
                message=f"the {comparisons[0]} compares with examples that are out at random, but the examples of this "
                f"injection are in in every run. Write coins: true and several runs, or leave the "
                f"{comparisons[0].partition(' ')[0]} out",
            )


def _compares_held_out(component: object) -> bool:
    """Whether a probe or an estimator, or a component inside it, declares `compares_held_out`."""
    return any(needs_of(part).compares_held_out for _, part in nested_components(component, ""))


def _compares_clients(estimator: Estimator) -> bool:
    """Whether an estimator is about clients that are left out, and not about audit examples."""
    return estimator_declaration(estimator).compares_clients


def _observed_rounds(observe: Observe, rounds: int) -> Iterator[Problem]:
    if observe.every is not None and observe.every > rounds:
        yield Problem(
            path="observe.every",
            message=f"{observe.every} exceeds the {rounds} rounds, so nothing would be observed between the first and "
            f"the last; use at most {rounds}, or leave it out",
        )
    for position, round_number in enumerate(observe.rounds):
        if not -rounds - 1 <= round_number <= rounds:
            yield Problem(
                path=f"observe.rounds[{position}]",
                message=f"round {round_number} never happens, there are {rounds}; use 0 to {rounds}, or -1 (the "
                f"last) down "
                f"to {-rounds - 1}, or raise rounds",
            )


def _levels(observe: Observe) -> Iterator[Problem]:
    if "sum" in observe.levels and not observe.sums:
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message="level 'sum' shows sums over some clients, but observe.sums says of how many; write, for instance, "
            "sums: [2, 5]",
        )
    if observe.sums and "sum" not in observe.levels:
        yield Problem(
            path="observe.sums",
            message=f"sums of {', '.join(map(str, observe.sums))} clients would not be read; add sum to "
            "observe.levels, or leave sums out",
        )
    if len(set(observe.sums)) < len(observe.sums):
        yield Problem(path="observe.sums", message=f"{list(observe.sums)} names a size twice; name each once")
    if len(set(observe.levels)) < len(observe.levels):
        yield Problem(path="observe.levels", message=f"{list(observe.levels)} names a level twice; name each once")


def _enough_to_sum(observe: Observe, sampler: Sampler, clients: int) -> Iterator[Problem]:
    max_count = _largest_cohort(sampler, clients)
    for position, count in enumerate(observe.sums):
        if count > max_count:
            yield Problem(
                path=f"observe.sums[{position}]",
                message=f"no cohort has {count} clients to sum over, the largest has {max_count}; use at most "
                f"{max_count}, or raise {'sampler.size' if max_count < clients else 'clients'}",
            )


def _sums_read(observe: Observe, probes: Sequence[Probe]) -> Iterator[Problem]:
    if "sum" in observe.levels and not any("sum" in probe.levels for probe in probes):
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message="level 'sum' is read by probes alone, and none does; give one levels: [local, sum, global], or "
            "leave sum out",
        )


def _probes(probes: Sequence[Probe], observe: Observe, rounds: int) -> Iterator[Problem]:
    for position, probe in enumerate(probes):
        path = f"probes[{position}]"
        if probe.every is not None and probe.every > rounds:
            message = f"{probe.every} exceeds the {rounds} rounds; use at most {rounds}, or leave it out"
            yield Problem(path=f"{path}.every", message=message)
        for round_number in probe_declaration(probe).rounds:
            if message := _not_observed(round_number, observe, rounds):
                yield Problem(path=f"{path}.rounds", message=message)
        yield from _check_level_is_observed(probe, path, observe.levels)


def _not_observed(round_number: int, observe: Observe, rounds: int) -> str:
    """That a round is not observed, and which ones are; empty where it is."""
    due = observe.observed_rounds_of(rounds)
    if round_number in due:
        return ""
    some = ", ".join(map(str, due[:12])) + (f", ... to {due[-1]}" if len(due) > 12 else "")
    return f"round {round_number} is not observed; add it to observe.rounds, or choose from {some}"


def _saved_models(save: Save, observe: Observe, rounds: int) -> Iterator[Problem]:
    if save.models is None:
        return
    numbers = count_from_start(save.models.rounds, rounds)
    for position, round_number in enumerate(numbers):
        path = f"save.models.rounds[{position}]"
        if message := _not_observed(round_number, observe, rounds):
            yield Problem(path=path, message=message)
        elif round_number in numbers[:position]:
            yield Problem(path=path, message=f"round {round_number} is named twice; name each round once")
    for position, level in enumerate(save.models.levels):
        path = f"save.models.levels[{position}]"
        if level not in observe.levels:
            yield Problem(
                path=path,
                message=level_unobserved(level, observe),
            )
        elif level in save.models.levels[:position]:
            yield Problem(path=path, message=f"level {level} is named twice; name each level once")


def _signals(
    signals: Sequence[AnySignal], injections: Sequence[Injection], observe: Observe, rounds: int
) -> Iterator[Problem]:
    for position, signal in enumerate(signals):
        path = f"signals[{position}]"
        if not injections and signal_declaration(signal).set == "audit":
            yield Problem(
                path=path,
                message=f"{kind_of(signal)} is read on audit examples, but injections is empty; add one, such as "
                "{kind: typical}",
            )
        if signal.every is not None and signal.every > rounds:
            message = f"{signal.every} exceeds the {rounds} rounds; use at most {rounds}, or leave it out"
            yield Problem(path=f"{path}.every", message=message)
        observed = observe.observed_rounds_of(rounds)
        for number in signal_declaration(signal).earlier_rounds:
            if number not in observed:
                yield Problem(
                    path=path,
                    message=f"{kind_of(signal)} needs the models of round {number}, which is not observed; choose "
                    f"from {', '.join(map(str, observed))}, or add it to observe.rounds",
                )
        names = _names_read(signal)
        for earlier, other in enumerate(signals[:position]):
            shared = sorted(names & _names_read(other))
            if shared and other != signal:
                yield Problem(
                    path=path,
                    message=f"signals[{earlier}] reads {', '.join(shared)} as well; keep one of the two",
                )
        if "sum" in signal.levels:
            yield Problem(path=f"{path}.levels", message="signals are read at local and global; leave sum out")
        yield from _check_level_is_observed(signal, path, observe.levels)


def _signals_of_attacks(
    estimators: Sequence[Estimator], signals: Sequence[AnySignal], observe: Observe, rounds: int
) -> Iterator[Problem]:
    """Signals that an estimator or its attack reads must be there, at every observed round."""
    read_by = {
        (name, signal_declaration(signal).set == "audit"): signal
        for signal in signals
        for name in (*(measure.name for measure in quantities_of(signal)), *quantities_in_parts(signal))
    }
    for position, estimator in enumerate(estimators):
        for path, component in nested_components(estimator, f"estimators[{position}]"):
            needs = needs_of(component)
            for name in (*needs.reads_signals, *needs.reads_set_signals):
                reading = read_by.get((name, name in needs.reads_signals))
                if reading is None:
                    yield Problem(path=path, message=_no_signal(kind_of(component), name))
                    continue
                every, due = reading.every, observe.observed_rounds_of(rounds)
                missed = [due_round for due_round in due if every and due_round % every and due_round != rounds]
                if missed:
                    yield Problem(
                        path=f"signals[{list(signals).index(reading)}].every",
                        message=f"{kind_of(component)} ({path}) reads the signal {name}, which every: {every} does not "
                        f"read at the observed round {missed[0]}; leave every out",
                    )


def _no_signal(component: str, name: str) -> str:
    """Why a component that reads this quantity of a signal is refused."""
    kind = _signal_that_reads(name)
    how = f"add {{kind: {kind}}} to signals" if kind else "add a signal of your own that reads it"
    return f"{component} reads the signal {name}, but signals has none of it; {how}, or leave {component} out"


def _signal_that_reads(name: str) -> str:
    """The kind of signal that reads a quantity of this name; empty if none does."""
    return next((kind for kind in kinds("signal") if name in _names_read(load("signal", kind))), "")


def _names_read(signal: AnySignal | type) -> set[str]:
    """The names of all that a signal or its class reads, those with several values included."""
    return {*(measure.name for measure in measures_of(signal)), *quantities_in_parts(signal)}


def _check_duplicates(
    probes: Sequence[Probe], estimators: Sequence[Estimator], signals: Sequence[AnySignal]
) -> Iterator[Problem]:
    for name, components in (("probes", probes), ("estimators", estimators), ("signals", signals)):
        for position, component in enumerate(components):
            first = components.index(component)
            if first < position:
                message = f"this is the same as {name}[{first}], and would be measured twice; leave one out"
                yield Problem(path=f"{name}[{position}]", message=message)


def _same_facts(
    probes: Sequence[Probe], estimators: Sequence[Estimator], signals: Sequence[AnySignal]
) -> Iterator[Problem]:
    """A measure has one unit, range and direction in all components that declare it, the catalogue included."""
    parts = [
        (f"{family}s[{position}]", f"{family} {kind_of(part)}", part)
        for family, components in (("estimator", estimators), ("signal", signals), ("probe", probes))
        for position, part in enumerate(components)
    ]
    declared: dict[str, tuple[str, Measure]] = {}
    if any(":" in whose for _, whose, _ in parts):
        for family in ("estimator", "signal", "probe"):
            for kind in kinds(family):
                for measure in measures_of(load(family, kind)):
                    declared.setdefault(measure.name, (f"{family} {kind}", measure))
    for path, whose, part in parts:
        conflicts: dict[str, list[str]] = {}
        for measure in measures_of(part):
            earlier, other = declared.setdefault(measure.name, (whose, measure))
            facts = differing_facts(other, measure)
            if facts:
                conflicts.setdefault(earlier, []).append(f"{measure.name} ({'; '.join(facts)})")
        for earlier, names in conflicts.items():
            yield Problem(
                path=path,
                message=f"{earlier} and {whose} declare different facts of {', '.join(names)}; give the measure of one "
                "of them another name, or the same unit, range and direction",
            )


def _estimator_levels(estimators: Sequence[Estimator], observe: Observe) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        if estimator_declaration(estimator).levels is not None:
            yield from _check_level_is_observed(estimator, f"estimators[{position}]", observe.levels)


def _check_level_is_observed(component: Any, path: str, observed: Sequence[str]) -> Iterator[Problem]:
    """A level that was asked for must be observed; of the default levels, one must be."""
    if not component.levels:
        yield Problem(
            path=f"{path}.levels",
            message=f"{kind_of(component)} would look at nothing; name local, global or both, or leave it out",
        )
    missing = [level for level in component.levels if level not in observed]
    if missing and (not _is_default(component, "levels") or len(missing) == len(component.levels)):
        yield Problem(
            path=f"{path}.levels",
            message=f"{kind_of(component)} reads level {', '.join(missing)}, but observe.levels is "
            f"[{', '.join(observed)}]; add it to observe.levels, or leave the component out",
        )


def _is_default(component: Any, name: str) -> bool:
    item = next((item for item in fields(component) if item.name == name), None)
    if item is None:
        return True
    default = item.default if item.default_factory is MISSING else item.default_factory()
    return bool(getattr(component, name) == default)


def _attack_series(
    estimators: Sequence[Estimator],
    signals: Sequence[AnySignal],
    observe: Observe,
    roster: str,
    sampler: Sampler,
    clients: int,
) -> Iterator[Problem]:
    """A membership attack over rounds is given what it reads."""
    on_audit = [signal for signal in signals if signal_declaration(signal).set == "audit"]
    levels_by_name = {measure.name: signal.levels for signal in on_audit for measure in quantities_of(signal)}
    # `probability.3` is there where `probability` is, as far as the data have the class
    levels_by_name |= {f"{name}.": signal.levels for signal in on_audit for name in quantities_per_class(signal)}
    for position, estimator in enumerate(estimators):
        for path, attack in nested_components(estimator, f"estimators[{position}]"):
            if not isinstance(attack, MembershipAttack):
                continue
            declared, kind = attack_declaration(attack), kind_of(attack)
            for name in dict.fromkeys((*declared.reads_series, *declared.reads_others)):
                if name not in EVIDENCE and without_class(name) not in levels_by_name:
                    yield Problem(path=path, message=_no_signal(kind, name))
            if not declared.reads_others:
                continue
            reason = "each client with the other clients of its round, by the models that they send"
            wrong = {
                "observe.levels": "local" not in observe.levels and "local models are not observed; add local",
                "roster": roster == "per_run" and "each run draws its own cohorts; write roster: shared",
                path: _largest_cohort(sampler, clients) < 3 and "a round has fewer than three clients; have more",
            }
            for name in declared.reads_others:
                if "local" not in levels_by_name.get(without_class(name), ("local",)):
                    wrong[path] = f"{name} is not read at local models; add local to the levels of its signal"
            for where, what in wrong.items():
                if what:
                    yield Problem(path=where, message=f"{kind} compares {reason}, but {what}, or leave {kind} out")


def _largest_cohort(sampler: Sampler, clients: int) -> int:
    size = sampler_declaration(sampler).size
    return clients if size is None else min(clients, size)


def _enough_runs(estimators: Sequence[Estimator], runs: int, twins: int) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        # From the inside out: an estimator asks for what its attack asks for, and the attack is to blame.
        for path, component in reversed(list(nested_components(estimator, f"estimators[{position}]"))):
            min_runs = needs_of(component).min_runs
            if runs // twins < min_runs:
                given = f"runs is {runs}" if twins == 1 else f"{runs} runs with {twins} twins are {runs // twins}"
                yield Problem(
                    path=path,
                    message=f"{kind_of(component)} compares runs with and without an example and needs at least "
                    f"{min_runs} runs, but {given}. Set runs to {min_runs * twins} or more, or leave it out",
                )
                break


def _even_rounds(estimators: Sequence[Estimator], observe: Observe, rounds: int) -> Iterator[Problem]:
    observed = [round_number for round_number in observe.observed_rounds_of(rounds) if round_number > 0]
    for position, estimator in enumerate(estimators):
        if estimator_declaration(estimator).needs_even_rounds and step_of(observed) is None:
            yield Problem(path=f"estimators[{position}]", message=explain_uneven(kind_of(estimator), observed))


def _something_to_estimate(estimators: Sequence[Estimator], injections: Sequence[Injection]) -> Iterator[Problem]:
    canaries = any(isinstance(injection, CanaryInjection) for injection in injections)
    for position, estimator in enumerate(estimators):
        kind = kind_of(estimator)
        if not injections and not _compares_clients(estimator):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} needs audit examples, but injections is empty; add one, such as {{kind: typical}}",
            )
        elif not canaries and any(needs_of(part).needs_canaries for _, part in nested_components(estimator, "")):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} ranks canaries among fresh references, but no injection makes canaries; "
                f"add {{kind: random_pattern}} to injections, or leave {kind} out",
            )
