"""What must hold between the parts of a scenario; each check names the numbers and the remedy.

The parameters of a check are the fields of the scenario that it reads. Where one of them is itself wrong, the check is
left out, so that one mistake is reported once and hides no other.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from fedmem.contracts.client import PersonalClient, ScheduledClient
from fedmem.contracts.families import kind_of, nested
from fedmem.contracts.injection import CanaryInjection
from fedmem.errors import Problem
from fedmem.privacy import client_noise, coverage, mechanism_alarms, mechanisms, promised_bounds


def problems(values: Mapping[str, Any]) -> list[Problem]:
    """Every conflict between these fields of a scenario, in the order of the checks below."""
    found: list[Problem] = []
    for check in CHECKS:
        names = inspect.signature(check).parameters
        if all(name in values for name in names):
            found += check(**{name: values[name] for name in names})
    return found


def _runs(runs: int) -> Iterator[Problem]:
    if runs > 1 and runs % 2:
        yield Problem(
            path="runs",
            message=f"{runs} is odd, but every audit example must be in exactly half of the runs; "
            f"use {runs + 1} (or 1, for a single federation)",
        )


def _cohort(sampler: Any, clients: int) -> Iterator[Problem]:
    for path, part in nested(sampler, "sampler"):
        for name in ("size", "candidates", "expected"):
            size = getattr(part, name, None)
            if isinstance(size, int | float) and size > clients:
                yield Problem(
                    path=f"{path}.{name}",
                    message=f"a cohort of {size:g} cannot be drawn from {clients} clients; "
                    f"lower {path}.{name} to at most {clients} or raise clients",
                )


def _separation(sampler: Any, clients: int) -> Iterator[Problem]:
    for path, part in nested(sampler, "sampler"):
        size, separation = getattr(part, "size", None), getattr(part, "separation", None)
        if isinstance(size, int) and isinstance(separation, int) and size <= clients < size * separation:
            yield Problem(
                path=f"{path}.separation",
                message=f"cohorts of {size} in each of {separation} rounds are {size * separation} different clients, "
                f"but there are {clients}; lower {path}.separation to at most {clients // size}, or {path}.size to at "
                f"most {max(1, clients // separation)}, or raise clients",
            )


def _preference(sampler: Any, injections: Sequence[Any]) -> Iterator[Problem]:
    for path, part in nested(sampler, "sampler"):
        prefers = kind_of(part) == "atypical" and part.beta > 0
        if not prefers or any(injection.role == "atypical" for injection in injections):
            continue
        yield Problem(
            path=path,
            message="atypical prefers clients that hold atypical examples, but no injection makes any; "
            "add one, such as {kind: mislabelled}, or use {kind: uniform}",
        )


def _learning(sampler: Any, roster: str) -> Iterator[Problem]:
    needs = getattr(sampler, "needs", ())
    if needs and roster == "shared":
        yield Problem(
            path="sampler",
            message=f"{kind_of(sampler)} reads {' and '.join(needs)}: these depend on the coins of a run, so that runs "
            "cannot share cohorts drawn from their own; use roster: pilot, which reads them from one run more, or "
            "use roster: own, with estimates at level global only, or another sampler",
        )


def _picked_by_coins(sampler: Any, roster: str, probes: Sequence[Any]) -> Iterator[Problem]:
    if roster != "own" or not getattr(sampler, "needs", ()):
        return
    for position, probe in enumerate(probes):
        if _compares_held_out(probe):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} compares examples that are in with examples that are held out, but with "
                f"roster: own {kind_of(sampler)} picks clients by losses or norms that depend on the same coins; use "
                "roster: pilot, or leave the probe out",
            )


def _held_back(injections: Sequence[Any], probes: Sequence[Any], estimators: Sequence[Any]) -> Iterator[Problem]:
    comparing = [
        *(f"probe {kind_of(probe)}" for probe in probes if _compares_held_out(probe)),
        *(f"estimator {kind_of(estimator)}" for estimator in estimators if _compares_held_out(estimator)),
    ]
    kept = [position for position, injection in enumerate(injections) if getattr(injection, "unmasked", 0)]
    for position in kept if comparing else ():
        yield Problem(
            path=f"injections[{position}].unmasked",
            message=f"the {comparing[0]} compares with examples that a coin held back, and copies that no coin masks "
            f"are trained on all the same; write unmasked: 0, or leave the {comparing[0].partition(' ')[0]} out",
        )


def _compares_held_out(component: Any) -> bool:
    """Whether a probe or an estimator, or a component inside it, declares `compares_held_out`."""
    return any(getattr(part, "compares_held_out", False) for _, part in nested(component, ""))


def _compares_clients(estimator: Any) -> bool:
    """Whether an estimator is about clients that are left out, and not about audit examples."""
    return bool(getattr(estimator, "compares_clients", False))


def _schedule(client: Any, probes: Sequence[Any]) -> Iterator[Problem]:
    if isinstance(client, ScheduledClient):
        return
    for position, probe in enumerate(probes):
        if any(getattr(part, "reads_gradients", False) for _, part in nested(probe, "")):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} reads an update as a gradient times learning rates, but client "
                f"{kind_of(client)} does not say them: its class has no method schedule(round_number, num_steps), "
                "which returns a fedmem.contracts.client.Schedule; add the method, or use client: {kind: sgd}, or leave the "
                "probe out",
            )


def _enough_clients(strategy: Any, sampler: Any, clients: int) -> Iterator[Problem]:
    wanted = getattr(strategy, "min_cohort", 1)
    # the cohorts of other samplers vary, and are not known before they are drawn
    size = clients if kind_of(sampler) == "everyone" else getattr(sampler, "size", None)
    if isinstance(size, int) and size < wanted:
        yield Problem(
            path="strategy",
            message=f"{kind_of(strategy)} as it is set here needs cohorts of at least {wanted}, but they are of "
            f"{size}; raise {'clients' if kind_of(sampler) == 'everyone' else 'sampler.size'}, or assume less of "
            f"{kind_of(strategy)}",
        )


def _honoured(strategy: Any, client: Any) -> Iterator[Problem]:
    wanted = getattr(type(strategy), "client", None)
    if isinstance(wanted, str) and kind_of(client) != wanted:
        yield Problem(
            path="client.kind",
            message=f"{kind_of(client)} does not heed what strategy {kind_of(strategy)} offers its clients; "
            f"use client: {{kind: {wanted}}}, or another strategy, such as fedavg",
        )
        return
    for name, value in getattr(strategy, "client_fields", {}).items():
        if getattr(client, name, value) != value:
            yield Problem(
                path=f"client.{name}",
                message=f"strategy {kind_of(strategy)} as it is set here reckons with {name}: {value:g}, but the "
                f"client has {getattr(client, name):g}; write {name}: {value:g}, or use another strategy, "
                "such as fedavg",
            )


def _personal(client: Any, observe: Any, estimators: Sequence[Any]) -> Iterator[Problem]:
    if not isinstance(client, PersonalClient):
        return
    if "sum" in observe.levels:
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message=f"a sum of models without the layers that {kind_of(client)} keeps at its clients predicts nothing; "
            "choose from: local, global, or use client: {kind: sgd}",
        )
    for position, estimator in enumerate(estimators):
        if _compares_clients(estimator):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares one aggregate for all, but with client {kind_of(client)} each "
                "holder reads its own; use client: {kind: sgd}, or leave it out",
            )


def _noise_of_the_clip(defences: Sequence[Any]) -> Iterator[Problem]:
    bound: float | None = None
    for position, defence in enumerate(defences):
        if kind_of(defence) == "clip":
            bound = defence.norm
        elif kind_of(defence) == "noise" and bound is not None and defence.norm != bound:
            yield Problem(
                path=f"defences[{position}].norm",
                message=f"noise is a multiple of the norm of the clip before it, which is {bound:g}, not "
                f"{defence.norm:g}; write norm: {bound:g}, or put noise before the clip",
            )


def _canary_clients(
    strategy: Any, sampler: Any, client: Any, clients: int, probes: Sequence[Any], observe: Any
) -> Iterator[Problem]:
    yield from promised_bounds.canary_clients(strategy, sampler, client, clients, probes, observe.levels)


def _central(
    central: str | None, sampler: Any, strategy: Any, client: Any, defences: Any, leave_out: Any, speed: Any
) -> Iterator[Problem]:
    if central is None:
        return
    for path, part, wanted, why in (
        (
            "sampler.kind",
            sampler,
            "everyone",
            "passes over the data are the same only where all take part in each round",
        ),
        ("strategy.kind", strategy, "fedavg", "there is one model and nothing to aggregate"),
        ("client.kind", client, "sgd", "what else a client does is not defined where there is one"),
    ):
        if kind_of(part) != wanted:
            yield Problem(path=path, message=f"central training cannot use {kind_of(part)}: {why}; use {wanted}")
    if getattr(client, "steps", None) is not None:
        yield Problem(
            path="client.steps",
            message=f"{client.steps} steps are of each client; one client that holds everything would take as many and "
            "see fewer examples; use epochs",
        )
    if defences:
        yield Problem(path="defences", message="no update leaves a client in central training; leave them out")
    if leave_out.clients:
        yield Problem(path="leave_out", message="there are no clients to leave out in central training; leave it out")
    if speed.engine == "flower":
        yield Problem(path="speed.engine", message="central training has no runtime of many; use engine: lockstep")


def _observed_rounds(observe: Any, rounds: int) -> Iterator[Problem]:
    if observe.every is not None and observe.every > rounds:
        yield Problem(
            path="observe.every",
            message=f"{observe.every} exceeds the {rounds} rounds, so nothing would be observed between the first and "
            f"the last; use at most {rounds}, or leave it out",
        )
    for position, round in enumerate(observe.rounds):
        if not -rounds - 1 <= round <= rounds:
            yield Problem(
                path=f"observe.rounds[{position}]",
                message=f"round {round} never happens, there are {rounds}; use 0 to {rounds}, or -1 (the last) down "
                f"to {-rounds - 1}, or raise rounds",
            )


def _levels(observe: Any) -> Iterator[Problem]:
    if "sum" in observe.levels and not observe.sums:
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message="level 'sum' shows sums over some clients, but observe.sums says of how many; write, for instance, "
            "sums: [2, 5]",
        )
    if observe.sums and "sum" not in observe.levels:
        yield Problem(
            path="observe.sums",
            message=f"sums of {', '.join(map(str, observe.sums))} clients would be shown to nobody; add sum to "
            "observe.levels, or leave sums out",
        )
    if len(set(observe.sums)) < len(observe.sums):
        yield Problem(path="observe.sums", message=f"{list(observe.sums)} names a size twice; name each once")
    if len(set(observe.levels)) < len(observe.levels):
        yield Problem(path="observe.levels", message=f"{list(observe.levels)} names a level twice; name each once")


def _enough_to_sum(observe: Any, sampler: Any, clients: int) -> Iterator[Problem]:
    size = getattr(sampler, "size", clients)
    most = min(clients, size) if isinstance(size, int) else clients
    for position, wanted in enumerate(observe.sums):
        if wanted > most:
            yield Problem(
                path=f"observe.sums[{position}]",
                message=f"no cohort has {wanted} clients to sum over, the largest has {most}; use at most {most}, or "
                f"raise {'sampler.size' if most < clients else 'clients'}",
            )


def _sums_read(observe: Any, probes: Sequence[Any]) -> Iterator[Problem]:
    if "sum" in observe.levels and not any("sum" in probe.levels for probe in probes):
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message="level 'sum' is read by probes alone, and none does; give one levels: [local, sum, global], or "
            "leave sum out",
        )


def _probes(probes: Sequence[Any], observe: Any, rounds: int) -> Iterator[Problem]:
    for position, probe in enumerate(probes):
        path = f"probes[{position}]"
        if probe.every is not None and probe.every > rounds:
            message = f"{probe.every} exceeds the {rounds} rounds; use at most {rounds}, or leave it out"
            yield Problem(path=f"{path}.every", message=message)
        due = observe.within(rounds)
        for round in getattr(probe, "rounds", ()):
            if round not in due:
                some = ", ".join(map(str, due[:12])) + (f", ... to {due[-1]}" if len(due) > 12 else "")
                message = f"round {round} is not observed; add it to observe.rounds, or choose from {some}"
                yield Problem(path=f"{path}.rounds", message=message)
        yield from _watched(probe, path, observe.levels)


def _twice(probes: Sequence[Any], estimators: Sequence[Any]) -> Iterator[Problem]:
    for name, components in (("probes", probes), ("estimators", estimators)):
        for position, component in enumerate(components):
            first = components.index(component)
            if first < position:
                message = f"this is the same as {name}[{first}], and would be measured twice; leave one out"
                yield Problem(path=f"{name}[{position}]", message=message)


def _estimator_levels(estimators: Sequence[Any], observe: Any) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        if hasattr(estimator, "levels"):
            yield from _watched(estimator, f"estimators[{position}]", observe.levels)


def _watched(component: Any, path: str, observed: Sequence[str]) -> Iterator[Problem]:
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


def _names(injections: Sequence[Any]) -> Iterator[Problem]:
    counts = Counter(injection.name for injection in injections)
    seen: set[str] = set()
    for position, injection in enumerate(injections):
        # names are joined by commas and hyphens in the settings of measurements
        if not re.fullmatch(r"[A-Za-z0-9_]+", injection.name):
            yield Problem(
                path=f"injections[{position}].label",
                message=f"{injection.name!r} cannot name a kind; use letters, digits and underscores only, such as "
                f"label: {re.sub(r'[^A-Za-z0-9]+', '_', injection.name).strip('_') or 'kind'}",
            )
        if injection.name in seen:
            yield Problem(
                path=f"injections[{position}]",
                message=f"{counts[injection.name]} injections are called {injection.name!r} and could not be told "
                f"apart; give this one a label of its own, such as label: {injection.name}_{position}",
            )
        seen.add(injection.name)


def _holders(injections: Sequence[Any], clients: int) -> Iterator[Problem]:
    for position, injection in enumerate(injections):
        path, chosen = f"injections[{position}].clients", getattr(injection, "clients", "all")
        if isinstance(chosen, tuple):
            for place, client in enumerate(chosen):
                if client >= clients:
                    yield Problem(
                        path=f"{path}[{place}]",
                        message=f"client {client} does not exist, there are {clients}; use 0 to {clients - 1}, "
                        "or raise clients",
                    )
        elif isinstance(chosen, Mapping) and chosen.get("count", 0) > clients:
            yield Problem(
                path=f"{path}.count",
                message=f"{chosen['count']} clients cannot be drawn from {clients}; use at most {clients}, or all, "
                "or raise clients",
            )


def _windows(injections: Sequence[Any], rounds: int) -> Iterator[Problem]:
    for position, injection in enumerate(injections):
        start = getattr(injection, "start", None)
        if start is not None and start > rounds:
            yield Problem(
                path=f"injections[{position}].start",
                message=f"round {start} never happens, there are {rounds}, so that nothing would be trained on in any "
                f"run; use at most {rounds}, or raise rounds",
            )


def _left_out(leave_out: Any, clients: int, runs: int) -> Iterator[Problem]:
    chosen = leave_out.clients
    if isinstance(chosen, int) and chosen > clients:
        yield Problem(
            path="leave_out.clients",
            message=f"{chosen} clients cannot be drawn from {clients}; use at most {clients}, or all, or raise clients",
        )
    for position, client in enumerate(chosen if isinstance(chosen, tuple) else ()):
        if client >= clients:
            yield Problem(
                path=f"leave_out.clients[{position}]",
                message=f"client {client} does not exist, there are {clients}; use 0 to {clients - 1}, "
                "or raise clients",
            )
        elif client in chosen[:position]:
            yield Problem(
                path=f"leave_out.clients[{position}]", message=f"client {client} is named twice; name it once"
            )
    if chosen and runs < 2:
        yield Problem(
            path="leave_out",
            message="a client is left out of half of the runs, but runs is 1; set runs to 4 or more, or leave it out",
        )


def _somebody_to_leave_out(estimators: Sequence[Any], leave_out: Any) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        if _compares_clients(estimator) and not leave_out.clients:
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares runs with and without a client, but every client is in every "
                "run; add leave_out: {clients: all}, or leave it out",
            )


def _population(estimators: Sequence[Any], population: int) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        for path, component in nested(estimator, f"estimators[{position}]"):
            if getattr(component, "needs_population", False) and not population:
                yield Problem(
                    path=path,
                    message=f"{kind_of(component)} compares examples with a population that nobody trains on, but "
                    "population is 0; set population to 200 or more, or leave it out",
                )


def _enough_runs(estimators: Sequence[Any], runs: int) -> Iterator[Problem]:
    for position, estimator in enumerate(estimators):
        # From the inside out: an estimator asks for what its attack asks for, and the attack is to blame.
        for path, component in reversed(list(nested(estimator, f"estimators[{position}]"))):
            wanted = int(getattr(component, "min_runs", 1))
            if runs < wanted:
                yield Problem(
                    path=path,
                    message=f"{kind_of(component)} compares runs with and without an example and needs at least "
                    f"{wanted} runs, but runs is {runs}; set runs to {wanted} or more, or leave it out",
                )
                break


def _something_to_estimate(estimators: Sequence[Any], injections: Sequence[Any]) -> Iterator[Problem]:
    canaries = any(isinstance(injection, CanaryInjection) for injection in injections)
    for position, estimator in enumerate(estimators):
        kind = kind_of(estimator)
        if not injections and not _compares_clients(estimator):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} needs audit examples, but injections is empty; add one, such as {{kind: typical}}",
            )
        elif not canaries and any(getattr(part, "needs_canaries", False) for _, part in nested(estimator, "")):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} ranks canaries among fresh references, but no injection makes canaries; "
                f"add {{kind: random_pattern}} to injections, or leave {kind} out",
            )


def _roster(roster: str, observe: Any, estimators: Sequence[Any]) -> Iterator[Problem]:
    if roster == "own" and estimators and set(observe.levels) == {"local"}:
        yield Problem(
            path="roster",
            message="with a roster of its own in each run, whether a client is picked may depend on the coins, so "
            "estimates exist at level global only; add global to observe.levels, or use roster: shared (roster: pilot "
            "for samplers that look at losses or norms)",
        )


def _executor(speed: Any, model: Any) -> Iterator[Problem]:
    if speed.executor == "stacked" and not model.stackable:
        yield Problem(
            path="speed.executor",
            message=f"model {kind_of(model)} cannot be trained as a stack; use executor: one_by_one or auto",
        )


def _rule(speed: Any, strategy: Any) -> Iterator[Problem]:
    if speed.server == "rule" and not callable(getattr(strategy, "rule", None)):
        yield Problem(
            path="speed.server",
            message=f"strategy {kind_of(strategy)} has no rule; use server: messages or auto",
        )


def _free_cohort(speed: Any, cohort: str) -> Iterator[Problem]:
    if speed.server == "rule" and cohort == "strategy":
        yield Problem(
            path="speed.server",
            message="a rule does not pick clients, but cohort is strategy; use server: messages, or cohort: sampler",
        )


def _flower(speed: Any) -> Iterator[Problem]:
    """What makes no sense where every client trains in a process of Flower's runtime."""
    if speed.engine != "flower":
        if speed.address is not None:
            yield Problem(
                path="speed.address",
                message="names a Ray cluster, which engine lockstep does not use; use engine: flower, or leave it out",
            )
        return
    if speed.executor == "stacked":
        yield Problem(
            path="speed.executor",
            message="engine flower trains each client by itself, in a worker process, so that nothing can be stacked; "
            "use executor: one_by_one or auto, or engine: lockstep",
        )
    if speed.server == "rule":
        yield Problem(
            path="speed.server",
            message="engine flower aggregates what comes in messages; use server: messages or auto, or engine: "
            "lockstep",
        )
    if speed.device == "cuda":
        yield Problem(
            path="speed.device",
            message="engine flower trains on processors only; use device: cpu, or engine: lockstep",
        )
    if speed.address is not None and speed.workers != "auto":
        yield Problem(
            path="speed.workers",
            message=f"{speed.workers} workers cannot be asked for where speed.address names a cluster: it has as many "
            "as its cores allow; use workers: auto, or leave address out",
        )


def _declared_reads(strategy: Any, sampler: Any) -> Iterator[Problem]:
    """What components say that they read is said in the words that are understood."""
    for path, part in (("strategy", strategy), *nested(sampler, "sampler")):
        reads = getattr(part, "reads", ())
        if isinstance(reads, str) or not set(reads) <= coverage.WORDS.keys() - {"unknown"}:
            known = ", ".join(word for word in coverage.WORDS if word != "unknown")
            yield Problem(
                path=path,
                message=f"{kind_of(part)} declares reads = {reads!r}, should be a tuple of some of {known}, or (); "
                'write for example reads: ClassVar[tuple[str, ...]] = ("rows",)',
            )


CHECKS: tuple[Callable[..., Iterator[Problem]], ...] = (
    _runs,
    _cohort,
    _declared_reads,
    _separation,
    _preference,
    _learning,
    _picked_by_coins,
    _held_back,
    _schedule,
    _enough_clients,
    _honoured,
    _personal,
    _noise_of_the_clip,
    mechanisms.problems,
    client_noise.record_adjacency,
    client_noise.problems,
    promised_bounds.problems,
    mechanism_alarms.problems,
    _canary_clients,
    _central,
    _observed_rounds,
    _levels,
    _enough_to_sum,
    _sums_read,
    _probes,
    _twice,
    _estimator_levels,
    _names,
    _holders,
    _windows,
    _left_out,
    _somebody_to_leave_out,
    _population,
    _enough_runs,
    _something_to_estimate,
    _roster,
    _executor,
    _rule,
    _free_cohort,
    _flower,
)
