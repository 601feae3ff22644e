"""A scenario file before it is run: all that is wrong with it, or what it will do, cost and be able to tell."""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.cli.data_problems import problems_of_data
from fedmem.cli.data_text import class_lines, data_lines
from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.events import count
from fedmem.contracts.families import kind_of, nested_components
from fedmem.errors import ComponentError, ScenarioError
from fedmem.guards.guarding import PartError
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.contracts.data import Dataset
    from fedmem.contracts.federation import Federation
    from fedmem.execution.plan import Plan, Precision
    from fedmem.scenario.scenario import Scenario
    from fedmem.scenario.yaml_source import Source


@dataclass(frozen=True, kw_only=True)
class CheckedScenario:
    """A scenario, its data, which can hold what it asks for, its lean federation, and notes."""

    scenario: Scenario
    data: Dataset
    federation: Federation
    notes: tuple[str, ...] = ()


def check_file(file: Path, overrides: Sequence[str] = (), source: Source | None = None) -> CheckedScenario:
    """The scenario of a file; its data are loaded once. `source` is the document in the file, if it was read already.

    Errors: `ScenarioError` with all that is wrong.
    """
    from fedmem.cli.errors import scenario_line
    from fedmem.execution.checked_inputs import require_same_source
    from fedmem.execution.plan import minimal_scenario
    from fedmem.execution.run import with_noise
    from fedmem.federation import build as federations
    from fedmem.privacy import record_level
    from fedmem.scenario.loading import load_source
    from fedmem.scenario.yaml_source import read_file
    from fedmem.shipped.files import find_scenario

    document = read_file(find_scenario(file)) if source is None else source
    unread = copy.deepcopy(document.value)  # loading uses the document up
    try:
        scenario, data = load_source(document, file, overrides), None
    except ScenarioError as error:
        hidden = problems_of_data(replace(document, value=unread), file, overrides, error.problems)
        raise ScenarioError([*error.problems, *hidden]) from error
    notes = scenario.notes
    require_same_source(scenario)
    try:
        data = federations.load(scenario)
        federation = federations.build(minimal_scenario(scenario), data)
        scenario = with_noise(scenario, federation)
        record_level.require(scenario, federation)
        return CheckedScenario(scenario=scenario, data=data, federation=federation, notes=notes)
    except (ComponentError, ScenarioError):
        federations.require(scenario, data)  # tells all that is wrong, not only what came first
        raise
    except PartError as error:
        error.cause += scenario_line(scenario, error)
        raise


def plan_text(checked: CheckedScenario, width: int = 100, *, timed: bool = False) -> str:
    """The plan of a scenario for people: lines of at most this width under their titles; of each phase, if it has some.

    `timed` trains three rounds and throws them away, for an estimate of the time.
    """
    from fedmem.execution.plan import minimal_scenario
    from fedmem.federation import build as federations

    texts = []
    for phase in checked.scenario.phases[:-1]:
        federation = federations.build(minimal_scenario(phase), checked.data)
        texts.append(_one_plan(replace(checked, scenario=phase, federation=federation, notes=()), width, timed=timed))
    return "\n".join([*texts, _one_plan(checked, width, timed=timed)])


def _one_plan(checked: CheckedScenario, width: int, *, timed: bool) -> str:
    """The plan of one phase."""
    from fedmem.execution.plan import plan
    from fedmem.scenario.caveats import caveats_with_data

    scenario, federation = checked.scenario, checked.federation
    run_plan = plan(scenario, federation)
    lines = [
        ("id", f"{scenario.name}/{scenario.id}{_phase_text(scenario)}"),
        *(("note", text) for text in checked.notes),
        *(("warning", text) for text in caveats_with_data(scenario, federation)),
        ("rows", _rows(run_plan)),
        *_population(run_plan),
        *data_lines(checked.data, checked.federation),
        *class_lines(checked.federation, scenario.injections, width - 13),
        ("model", _model(checked.federation, scenario)),
        *(("weights", note) for note in checked.federation.initial_notes),
        *_owners(checked.federation.foreign_rows),
        *(("injection", note) for note in checked.federation.notes),
        *_work(run_plan, scenario.speed.memory),
        *_privacy(scenario, checked.federation),
        *_control(scenario, run_plan),
        *_precision(run_plan),
        *_membership(scenario, run_plan),
        ("time", _time(checked, run_plan) if timed else "not estimated; --time trains and times three rounds"),
    ]
    return "\n".join(line for title, text in lines for line in title_lines(title, text, width))


def _phase_text(scenario: Scenario) -> str:
    """Which phase it is, where there are several."""
    if scenario.after is None or scenario.previous is None:
        return ""
    return f", {scenario.after.title}, after {scenario.previous.id}"


def title_lines(title: str, text: str, width: int) -> Iterator[str]:
    """A title and beside it a text, broken between words."""
    broken = textwrap.wrap(text, width - 13, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(broken or [""]):
        yield f"  {title if not number else '':10} {line}".rstrip()


def _rows(run_plan: Plan) -> str:
    """Where every row of the data goes."""
    counts = dict(run_plan.rows)
    total = counts.pop("total", sum(counts.values()))
    texts = {name: f"{count} {name}" for name, count in counts.items() if count or name == "base"}
    if run_plan.generated:
        texts["audit"] = f"{counts['audit']} audit (+ {run_plan.generated} generated)"
    return f"{total} = " + " + ".join(texts.values())


def _model(federation: Federation, scenario: Scenario) -> str:
    """The class of the network, its layers with parameters, and how many parameters there are."""
    from fedmem.federation.parameter_counts import count_parameters

    layers = [type(part).__name__ for part in federation.model.modules() if list(part.parameters(recurse=False))]
    statistics = sum(federation.initial[name].numel() for name in federation.mode.statistics)
    count = sum(values.numel() for values in federation.initial.values()) - statistics
    frozen = sum(value.numel() for value in federation.model.parameters() if not value.requires_grad)
    frozen_text = f" and {frozen:,} frozen ones" if frozen else ""
    frozen_text += f" and {statistics:,} running statistics" if statistics else ""
    counts = count_parameters(federation, scenario.client)
    if local := counts.get("by_norm", 0) + counts.get("by_client", 0):
        frozen_text += f", {local:,} of which stay with clients"
    shown = ", ".join(layers[:8]) + (f" and {len(layers) - 8} more" if len(layers) > 8 else "")
    stored = ""
    if federation.prefix is not None:
        size, share = bytes_text(federation.prefix.nbytes), federation.prefix.prefix.saved_share
        stored = f"; {size} of outputs of frozen layers, stored by row, save {share:.0%} of a forward pass"
    return f"{type(federation.model).__name__}, {count:,} parameters{frozen_text}; layers: {shown}{stored}"


def _population(run_plan: Plan) -> Iterator[tuple[str, str]]:
    """Which share of the rows is set aside, and for what."""
    taken, test, total = (run_plan.rows.get(name, 0) for name in ("population", "test", "total"))
    if taken:
        yield (
            "set aside",
            f"{taken} of {total - test} training rows ({100 * taken / (total - test):.0f} %) are population: reference "
            "data of attacks, which no client trains on",
        )


def _owners(foreign_rows: Mapping[str, int] | None) -> Iterator[tuple[str, str]]:
    """Whose rows the audit takes, with a partition by owner."""
    if foreign_rows is None:
        return
    exceptions = ", ".join(f"{count} of {injection}" for injection, count in foreign_rows.items())
    yield (
        "owners",
        "real audit rows and replacement rows of a client are its own"
        + (f", except for rows of other owners: {exceptions}" if exceptions else ""),
    )


def _work(run_plan: Plan, budget: float | None) -> Iterator[tuple[str, str]]:
    """Training, what is looked at, and the room that it takes."""
    about = "" if run_plan.exact else "about "
    twins = f" with {run_plan.twins} twins each" if run_plan.twins > 1 else ""
    yield (
        "training",
        f"{count(run_plan.runs, 'run')}{twins}{' and a pilot' * run_plan.pilots} × {count(run_plan.rounds, 'round')} × "
        f"{run_plan.cohort:.4g} client{'s' * (run_plan.cohort != 1)} = {about}"
        f"{count(run_plan.trainings, 'local training')}; {count(run_plan.steps, 'step')} "
        f"({_range_text(*run_plan.steps_each)} each), which see {count(run_plan.examples, 'example')}",
    )
    yield "observed", f"{count(len(run_plan.observed), 'round')}: {_round_list(run_plan.observed)}"
    yield (
        "evidence",
        f"{about}{count(run_plan.evidence, 'row')} = {_models_and_sets(run_plan)}"
        + (f"; {count(run_plan.references, 'row')} of references" if run_plan.references else ""),
    )
    work = run_plan.signals
    if work.values or work.set_values:
        share = work.passes / max(1, 3 * run_plan.examples)
        others = f" and {work.set_values:,} on test or reference data" if work.set_values else ""
        yield (
            "signals",
            f"{about}{work.values:,} values{others}, by about {work.passes:,} forward passes of one example; "
            f"training takes {3 * run_plan.examples:,}, so that signals add {100 * share:.0f} %",
        )
    if run_plan.replays:
        yield (
            "replays",
            f"at most {count(run_plan.replays, 'local training')} repeated by probes, which add "
            f"{100 * run_plan.replays / max(1, run_plan.trainings):.0f} % to those of the runs",
        )
    if text := run_plan.unlearning.text(run_plan.trainings):
        yield "unlearning", text
    yield "memory", _memory(run_plan)
    if budget is not None:
        yield "budget", _budget(run_plan, budget)
    if run_plan.saved:
        yield (
            "saved",
            f"{about}{count(run_plan.saved, 'model')}, which take {bytes_text(run_plan.disk['models'])}, and twice as "
            "much while shards are joined",
        )
    yield "disk", _size(run_plan.disk)


def _models_and_sets(run_plan: Plan) -> str:
    """The models of each level and the examples that they are evaluated on; levels with the same examples together."""
    levels_by_sets: dict[str, list[str]] = {}
    for level, number in run_plan.models.items():
        sets = " + ".join(f"{examples} {name}" for name, examples in run_plan.sets[level].items() if examples)
        levels_by_sets.setdefault(sets or "no", []).append(f"{number:,} {level}")
    terms = [f"({' + '.join(models)} models) × ({sets} examples)" for sets, models in levels_by_sets.items()]
    return " + ".join(terms)


def _privacy(scenario: Scenario, federation: Federation) -> Iterator[tuple[str, str]]:
    """The privacy guarantees after all rounds, and which noise was chosen for a target."""
    from fedmem.contracts.client import PrivateAlgorithm
    from fedmem.privacy import record_level, spending
    from fedmem.privacy.accounting import guarantee_of

    for loss in spending.of_scenario(scenario):
        target = scenario.privacy.target_epsilon
        target_text = "" if target is None or loss.part != "strategy" else f", within privacy.target_epsilon {target:g}"
        yield (
            "privacy",
            f"{loss.part}, against {loss.against}: {guarantee_of(loss.releases)}{target_text}; covers {loss.covers}",
        )
    if isinstance(scenario.client, PrivateAlgorithm):
        noise = scenario.client.per_example.noise_multiplier
        guarantees = [guarantee_of(release) for release in record_level.releases(scenario, federation, noise)]
        target = scenario.privacy.target_epsilon
        within = "" if target is None else f", within privacy.target_epsilon {target:g}"
        if guarantees:
            yield (
                "privacy",
                f"client, against the updates that clients send: at most "
                f"{max(guarantees, key=lambda bound: bound.epsilon)}{within}, of a client that participates as often "
                "as it can. The guarantee of each client is reported after the run",
            )


def _control(scenario: Scenario, run_plan: Plan) -> Iterator[tuple[str, str]]:
    """The cost of the positive control of an audit."""
    from fedmem.execution.positive_control import audit_of, runs_of

    audit = audit_of(scenario)
    if audit is None:
        return
    runs = len(runs_of(audit, scenario))
    share = runs / (run_plan.runs + run_plan.pilots)
    yield (
        "control",
        f"the audit of {audit.example_kind} trains {runs} run{'s' * (runs > 1)} more without noise, its positive "
        f"control: about {round(run_plan.trainings * share):,} local trainings; control: false leaves it out",
    )


def _range_text(low: int, high: int) -> str:
    """One number, or the smallest and the largest.

    >>> _range_text(7, 7), _range_text(12, 60)
    ('7', '12 to 60')
    """
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _memory(run_plan: Plan) -> str:
    """The peak: when it is, and what it is made of."""
    purposes = sorted(run_plan.memory[run_plan.moment].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{bytes_text(size)} {purpose}" for purpose, size in purposes if size >= 10**6)
    total = bytes_text(sum(size for _, size in purposes))
    return f"about {total} while {_PHASES[run_plan.moment]}: {listed}"


_PHASES = {"laying out": "the data are laid out", "training": "training", "estimating": "results are made"}


def _budget(run_plan: Plan, budget: float) -> str:
    """Whether each phase stays within so many gigabytes, and what was made smaller for it."""
    room, full_room = run_plan.room, run_plan.unlimited
    smaller = {
        "megabytes of parameters in a stack": (full_room.stack_bytes / 2**20, room.stack_bytes / 2**20),
        "rows in a forward pass": (full_room.forward_rows, room.forward_rows),
        "runs in a shard": (full_room.shard, room.shard),
        "workers": (full_room.workers, room.workers),
    }
    changes = [
        f"{after:.3g} {what} instead of {before:.3g}" for what, (before, after) in smaller.items() if after < before
    ]
    takes = {phase: sum(run_plan.memory[phase].values()) for phase in _PHASES}
    text = f"training takes {bytes_text(takes['training'])} of {budget:g} GB"
    text += f", with {', '.join(changes)}" if changes else ", as it is"
    over = [f"while {_PHASES[phase]} {bytes_text(size)}" for phase, size in takes.items() if size > budget * 1e9]
    return text + (f"; more than that is taken {' and '.join(over)}, which cannot be cut" if over else "")


def _round_list(rounds: Sequence[int]) -> str:
    """Rounds, the middle of many left out."""
    if len(rounds) <= 16:
        return ", ".join(map(str, rounds))
    return f"{', '.join(map(str, rounds[:8]))}, …, {', '.join(map(str, rounds[-4:]))}"


def _precision(run_plan: Plan) -> Iterator[tuple[str, str]]:
    """The smallest differences that can be distinguished, kind by kind."""
    kinds = [kind for kind in run_plan.precision if kind.examples]
    if run_plan.runs == 1 or not kinds:
        return
    largest_error = max(kind.of_one for kind in kinds)
    independent = run_plan.runs // run_plan.twins
    whole = math.isclose(largest_error, independent**-0.5)
    what = "runs" if run_plan.twins == 1 else "runs with different inclusion"
    runs = f"√(1/R), R = {independent} {what}" if whole else "R counts the runs that have its owning client"
    means = _join_equal((f"{kind.of_mean:.3f}", f"{kind.examples} {kind.kind}{_draws(kind)}") for kind in kinds)
    m = "draws" if any(kind.draws < kind.examples for kind in kinds) else "examples"
    yield (
        "precision",
        f"the standard error of memorisation is at most {largest_error:.2f} for one example ({runs}). For the mean "
        f"of m {m} it is √(1/(R m)), if they do not influence each other: {means}",
    )


def _draws(kind: Precision) -> str:
    """In how many draws examples are in or out together; empty where each is drawn alone."""
    return f" in {count(kind.draws, 'draw')}" if kind.draws < kind.examples else ""


def _membership(scenario: Scenario, run_plan: Plan) -> Iterator[tuple[str, str]]:
    """The false positive rates that the membership attacks of this scenario can be read at; nothing without any."""
    attacks = [part for _, part in nested_components(scenario.estimators) if isinstance(part, MembershipAttack)]
    kinds = [kind for kind in run_plan.precision if kind.examples]
    if run_plan.runs == 1 or not kinds or not attacks:
        return
    titles = dict.fromkeys(attack_declaration(attack).title or kind_of(attack) for attack in attacks)
    rates = _join_equal(
        ("none" if math.isnan(kind.fpr) else f"{kind.fpr:.2g} ({kind.outs:,} outs)", kind.kind) for kind in kinds
    )
    yield (
        "membership",
        f"the smallest false positive rate that {' and '.join(titles)} can be read at, 10 / outs: {rates}",
    )


def _time(checked: CheckedScenario, run_plan: Plan) -> str:
    """About how long the run takes, from three rounds that are trained now."""
    from fedmem.execution.auto import workers_of
    from fedmem.studies.cost import UNTIMED, scenario_seconds, time_text

    seconds, timed_runs = scenario_seconds(checked.scenario, checked.federation, run_plan)
    shards = math.ceil((run_plan.runs + run_plan.pilots) / run_plan.room.shard)
    return UNTIMED if math.isnan(seconds) else time_text(seconds, min(workers_of(checked.scenario), shards), timed_runs)


def _join_equal(values: Iterable[tuple[str, str]]) -> str:
    """Values with what they are of, each value once."""
    names_by_value: dict[str, list[str]] = {}
    for value, name in values:
        names_by_value.setdefault(value, []).append(name)
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in names_by_value.items())


def _size(parts: Mapping[str, int]) -> str:
    """A sum of bytes and what most of it is for."""
    total = sum(parts.values())
    first, largest = next(iter(parts.items()))
    share = f", {100 * largest / total:.0f} % of it {first}" if total else ""
    return f"about {bytes_text(total)}{share}"
