"""A scenario file before it is run: all that is wrong with it, or what it will do, cost and be able to tell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.errors import ComponentError, ScenarioError
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.execution.plan import Plan
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A scenario whose data can hold what it asks for, and its federation, as lean as planning needs it."""

    scenario: Scenario
    federation: Federation


def check_file(file: Path, overrides: Sequence[str] = ()) -> Checked:
    """The scenario of a file; its data are loaded once. Errors: `ScenarioError` with all that is wrong."""
    from fedmem.execution.plan import lean
    from fedmem.execution.run import with_noise
    from fedmem.federation import build as federations
    from fedmem.privacy import record_level
    from fedmem.scenario.loading import load_scenario

    scenario, data = load_scenario(file, overrides), None
    try:
        data = federations.load(scenario)
        federation = federations.build(lean(scenario), data)
        scenario = with_noise(scenario, federation)
        record_level.require(scenario, federation)
        return Checked(scenario=scenario, federation=federation)
    except (ComponentError, ScenarioError):
        federations.require(scenario, data)  # tells all that is wrong, not only what came first
        raise


def told(checked: Checked, width: int = 100) -> str:
    """What a scenario will do, for people: lines of at most this width under their titles."""
    from fedmem.execution.plan import plan
    from fedmem.scenario.caveats import caveats

    scenario, found = checked.scenario, plan(checked.scenario, checked.federation)
    lines = [
        ("id", f"{scenario.name}/{scenario.id}"),
        *(("warning", text) for text in caveats(scenario)),
        ("rows", _rows(found)),
        *_work(found, scenario.speed.memory),
        *_privacy(scenario, checked.federation),
        *_control(scenario, found),
        *_precision(found),
    ]
    return "\n".join(line for title, text in lines for line in _titled(title, text, width))


def _titled(title: str, text: str, width: int) -> Iterator[str]:
    """A title and beside it a text, broken between words."""
    broken = textwrap.wrap(text, width - 13, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(broken or [""]):
        yield f"  {title if not number else '':10} {line}".rstrip()


def _rows(found: Plan) -> str:
    """Where every row of the data goes."""
    counts = dict(found.rows)
    total = counts.pop("total", sum(counts.values()))
    said = {name: f"{count} {name}" for name, count in counts.items() if count or name == "base"}
    if found.generated:
        said["audit"] = f"{counts['audit']} audit (+ {found.generated} generated)"
    return f"{total} = " + " + ".join(said.values())


def _work(found: Plan, budget: float | None) -> Iterator[tuple[str, str]]:
    """Training, what is looked at, and the room that it takes."""
    about = "" if found.exact else "about "
    yield (
        "training",
        f"{found.runs} runs{' and a pilot' * found.pilots} × {found.rounds} rounds × {found.cohort:.4g} clients = "
        f"{about}{found.trainings:,} local "
        f"trainings; {found.steps:,} steps ({found.steps / max(1, found.trainings):.3g} each), which see "
        f"{found.seen:,} examples",
    )
    yield "observed", f"{len(found.observed)} rounds: {_some(found.observed)}"
    models = " + ".join(f"{count:,} {level}" for level, count in found.models.items())
    sets = " + ".join(f"{count} {name}" for name, count in found.sets.items() if count)
    yield (
        "evidence",
        f"{about}{found.evidence:,} rows = ({models} models) × ({sets or 'no'} examples)"
        + (f"; {found.references:,} rows of references" if found.references else ""),
    )
    yield "memory", _memory(found)
    if budget is not None:
        yield "budget", _budget(found, budget)
    yield "disk", _size(found.disk)


def _privacy(scenario: Scenario, federation: Federation) -> Iterator[tuple[str, str]]:
    """What noise promises after all rounds, and which noise was chosen for a target."""
    from fedmem.contracts.client import PrivateAlgorithm
    from fedmem.privacy import record_level, spending
    from fedmem.privacy.accounting import promise

    for one in spending.of_scenario(scenario):
        target = scenario.privacy.target_epsilon
        chosen = "" if target is None or one.part != "strategy" else f", within privacy.target_epsilon {target:g}"
        yield "privacy", f"{one.part}, against {one.against}: {promise(one.releases)}{chosen}; covers {one.covers}"
    if isinstance(scenario.client, PrivateAlgorithm):
        noise = scenario.client.per_example.noise_multiplier
        given = [promise(one) for one in record_level.releases(scenario, federation, noise)]
        target = scenario.privacy.target_epsilon
        within = "" if target is None else f", within privacy.target_epsilon {target:g}"
        if given:
            yield (
                "privacy",
                f"client, against the updates that clients send: at most {max(given, key=lambda one: one.epsilon)}"
                f"{within}, of a client that takes part as often as it can; each has its own, which is told after the "
                "run",
            )


def _control(scenario: Scenario, found: Plan) -> Iterator[tuple[str, str]]:
    """What the positive control of an audit costs."""
    from fedmem.execution.positive_control import audit_of, runs_of

    audit = audit_of(scenario)
    if audit is None:
        return
    runs = len(runs_of(audit, scenario))
    share = runs / (found.runs + found.pilots)
    yield (
        "control",
        f"the audit of {audit.of} trains {runs} run{'s' * (runs > 1)} more without noise, its positive control: about "
        f"{round(found.trainings * share):,} local trainings; control: false leaves it out",
    )


def _memory(found: Plan) -> str:
    """The peak: when it is, and what it is made of."""
    purposes = sorted(found.memory[found.moment].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{bytes_text(size)} {purpose}" for purpose, size in purposes if size >= 10**6)
    total = bytes_text(sum(size for _, size in purposes))
    return f"about {total} while {_PHASES[found.moment]}: {listed}"


_PHASES = {"laying out": "the data are laid out", "training": "training", "estimating": "results are made"}


def _budget(found: Plan, budget: float) -> str:
    """Whether each phase stays within so many gigabytes, and what was made smaller for it."""
    room, roomy = found.room, found.roomy
    smaller = {
        "megabytes of parameters in a stack": (roomy.stack_bytes / 2**20, room.stack_bytes / 2**20),
        "rows in a forward pass": (roomy.forward_rows, room.forward_rows),
        "runs in a shard": (roomy.shard, room.shard),
        "workers": (roomy.workers, room.workers),
    }
    changes = [
        f"{after:.3g} {what} instead of {before:.3g}" for what, (before, after) in smaller.items() if after < before
    ]
    takes = {phase: sum(found.memory[phase].values()) for phase in _PHASES}
    said = f"training takes {bytes_text(takes['training'])} of {budget:g} GB"
    said += f", with {', '.join(changes)}" if changes else ", as it is"
    over = [f"while {_PHASES[phase]} {bytes_text(size)}" for phase, size in takes.items() if size > budget * 1e9]
    return said + (f"; more than that is taken {' and '.join(over)}, which cannot be cut" if over else "")


def _some(rounds: Sequence[int]) -> str:
    """Rounds, the middle of many left out."""
    if len(rounds) <= 16:
        return ", ".join(map(str, rounds))
    return f"{', '.join(map(str, rounds[:8]))}, …, {', '.join(map(str, rounds[-4:]))}"


def _precision(found: Plan) -> Iterator[tuple[str, str]]:
    """What can be told apart at best, kind by kind."""
    kinds = [kind for kind in found.precision if kind.examples]
    if found.runs == 1 or not kinds:
        return
    one = max(kind.of_one for kind in kinds)
    whole = math.isclose(one, found.runs**-0.5)
    runs = f"√(1/R), R = {found.runs} runs" if whole else "R counts the runs that have its holder"
    means = _alike((f"{kind.of_mean:.3f}", f"{kind.examples} {kind.kind}") for kind in kinds)
    yield (
        "precision",
        f"the standard error of memorisation is at most {one:.2f} for one example ({runs}), and for the mean of m "
        f"examples √(1/(R m)), if they do not influence each other: {means}",
    )
    rates = _alike(
        ("none" if math.isnan(kind.fpr) else f"{kind.fpr:.2g} ({kind.outs:,} outs)", kind.kind) for kind in kinds
    )
    few = " (LiRA itself needs 8 runs or more)" if found.runs < 8 else ""
    yield "membership", f"the smallest false positive rate that LiRA can be read at, 10 / outs: {rates}{few}"


def _alike(values: Iterable[tuple[str, str]]) -> str:
    """Values with what they are of, each value once."""
    found: dict[str, list[str]] = {}
    for value, name in values:
        found.setdefault(value, []).append(name)
    return "; ".join(f"{value} for {', '.join(names)}" for value, names in found.items())


def _size(parts: Mapping[str, int]) -> str:
    """A sum of bytes and what most of it is for."""
    total = sum(parts.values())
    first, most = next(iter(parts.items()))
    share = f", {100 * most / total:.0f} % of it {first}" if total else ""
    return f"about {bytes_text(total)}{share}"
