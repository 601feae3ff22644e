"""The sections of a table that are about privacy: guarantees, the bounds that follow, and what audits have proven."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fedmem.contracts.measure import Measure, base_of
from fedmem.contracts.measurement import NO_CLIENT, Labels, Measurement, Reading
from fedmem.privacy.accounting import sampling_text
from fedmem.privacy.mechanism_alarms import METRIC, name_of
from fedmem.privacy.spending import PERMITTED, largest_epsilon_of
from fedmem.reporting.cells import Section, Value, number, rate
from fedmem.reporting.measures import attack_names, label_title, measure_of, measures_of_run
from fedmem.results.read import Run
from fedmem.scenario.caveats import NOT_COVERED

_Key = tuple[str, str, str, Labels]
"""Level, metric, subject and labels of a row."""


def sections(run: Run) -> Iterator[Section]:
    """Guarantees, the bounds that follow, and audits; a section is empty without rows."""
    rows = run.rows()
    yield _guarantee_section(run)
    yield bounds(rows, measures_of_run(run))
    yield audits(rows)
    yield mechanism(rows)
    yield canary_clients(rows)


def audit_notes(run: Run, rows: Sequence[Measurement]) -> tuple[str, ...]:
    """The results of bounds, audits and direct tests about the guarantees, in sentences."""
    tested = (bounds(rows, measures_of_run(run)), audits(rows), mechanism(rows), canary_clients(rows))
    return tuple(note for section in tested for note in section.notes if note != _OTHER_NEIGHBOURS)


def _guarantee_section(run: Run) -> Section:
    """The privacy guarantee after all rounds of each part that adds noise."""
    guarantee, target = run.manifest.get("privacy") or {}, target_epsilon(run)
    rows = []
    for entry in guarantee.get("mechanisms", ()):
        rate = "" if entry["rate"] == 1 else f" {entry['rate']:.3g}"
        rate = rate if entry.get("min_separation") is None else f", {entry['min_separation']} rounds apart"
        epsilon = math.inf if entry["epsilon"] is None else entry["epsilon"]
        rows.append(
            (
                f"{entry['part']}: {entry['against']}",
                f"{entry['unit']}, {entry['adjacency']}",
                f"{sampling_text(entry['sampling'])}{rate}",
                f"{entry['noise_multiplier']:.3g}",
                f"{entry['delta']:.2g}",
                f"{_epsilon(epsilon)} ({entry['accountant']}){_target_text(target[entry['part']])}",
            )
        )
    columns = ("", "neighbours differ in", "sampling", "noise / clip", "delta", "epsilon")
    limits = [
        f"{entry['part']} covers {entry['covers']}." for entry in guarantee.get("mechanisms", ()) if entry.get("covers")
    ]
    not_covered = [text for text in run.manifest.get("warnings") or () if text.startswith(NOT_COVERED)]
    uncovered = [f"{text[0].upper()}{text[1:]}." for text in not_covered]
    largest = largest_epsilon_of(run.manifest)
    possible = [f"A client that participates as often as it can has epsilon {_epsilon(largest)}."]
    possible *= not math.isnan(largest)
    notes = (guarantee["says"], *possible, *limits, *uncovered) if rows else ()
    return Section(
        title="PRIVACY",
        columns=columns,
        blocks=(("after all rounds, against an observer of", tuple(rows)),),
        notes=notes,
    )


def target_epsilon(run: Run) -> Mapping[str, float]:
    """The target epsilon of each part with a guarantee; NaN where no target was given.

    Noise of defences has no target: it is that of the scenario.
    """
    target = (run.scenario.get("privacy") or {}).get("target_epsilon")
    entries = (run.manifest.get("privacy") or {}).get("mechanisms", ())
    return {
        entry["part"]: math.nan if target is None or entry["part"] == "defences" else float(target) for entry in entries
    }


def _target_text(target: float) -> str:
    return "" if math.isnan(target) else f", target {target:g}"


def _epsilon(value: float) -> str:
    """Two decimals, or below 1 two digits: a small guarantee is never shown as zero."""
    return f"{value:.2g}" if 0 < value < 1 else number(value, 2)


def bounds(rows: Sequence[Measurement], measures: Mapping[str, Measure]) -> Section:
    """Every measure with the largest value that the guarantee allows; a note where it is larger.

    Each block has the epsilon, the delta and the neighbours of its bounds as its heading.
    """
    last = [row for row in rows if row.scope == "summary" and row.client == NO_CLIENT]
    values = {_key(row): row.reading for row in last}
    lines: dict[tuple[str, str], dict[str, str]] = {}
    counts: dict[tuple[str, str], set[int]] = {}
    notes = []
    for (level, metric, subject, labels), bound in values.items():
        if not metric.endswith(".bound"):
            continue
        measure = base_of(metric)
        reading = values[level, measure, subject, labels]
        key = (_title(measure_of(measure, measures), labels.without("place")), subject)
        lines.setdefault(key, {})[level] = f"{number(reading.value, 3)} of at most {number(bound.value, 3)}"
        counts.setdefault(key, set()).add(reading.n)
        value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n)
        if value.low > bound.value:
            about = " of ".join(filter(None, (key[0], subject)))
            notes.append(
                f"Above the guarantee: {about}, {level}, is {value.text(3)}, of at most {number(bound.value, 3)}. "
                "Noise, clipping or accounting may be wrong."
            )
    blocks: dict[str, list[tuple[str, ...]]] = {}
    for (name, subject), cells in lines.items():
        count = "/".join(map(str, sorted(counts[name, subject])))
        line = (
            ", ".join(filter(None, (name, subject))),
            count,
            *(cells.get(level, "–") for level in ("local", "global")),
        )
        blocks.setdefault(_heading(values, subject, tuple(cells)), []).append(line)
    notes += [_OTHER_NEIGHBOURS] if blocks else []
    return Section(
        title="BOUNDS",
        columns=("", "n", "local", "global"),
        blocks=tuple((heading, tuple(block)) for heading, block in blocks.items()),
        notes=tuple(notes),
    )


def _heading(values: Mapping[_Key, Reading], subject: str, levels: Sequence[str]) -> str:
    """The guarantee behind the bounds of a kind at these levels, and what its adversary knows."""
    guarantees = {
        level: f"epsilon {_epsilon(reading.value)}, {_about(labels, 'copies', 'delta')}"
        for (level, metric, about, labels), reading in values.items()
        if metric == PERMITTED and about == subject and level in levels
    }
    observer = "each example at the last observed round of its owning client, for an observer who knows the cohorts"
    if len(set(guarantees.values())) <= 1:
        return "; ".join([*set(guarantees.values()), observer])
    return "; ".join([*(f"{level}: {text}" for level, text in guarantees.items()), observer])


_OTHER_NEIGHBOURS = (
    "The epsilon of these bounds is for the neighbours that random inclusion compares. Another record is in the place "
    "of the example, or no record with exclusion: remove. PRIVACY may state the same noise for other neighbours, and "
    "target_epsilon is a target for those."
)
"""Why the epsilon of bounds may differ from that of the guarantee."""


def _title(measure: Measure, labels: Labels) -> str:
    """A measure with its labels, in the words of the main table."""
    attack = attack_names().get(labels.text("attack"))
    parts = [attack.title, labels.text("options")] if attack else [labels.text("attack")]
    parts += [f"{measure.title}{', ' * bool(measure.unit_text)}{measure.unit_text}"]
    parts += [f"by {labels.text('statistic')}"] if "statistic" in labels else []
    parts += [f"at FPR {rate(labels.number('fpr'))}"] if "fpr" in labels else []
    return " ".join(filter(None, [*parts, *labels.without("attack", "options", "statistic", "fpr").words()]))


def audits(rows: Sequence[Measurement]) -> Section:
    """The bounds of kinds at the last round that audits have read."""
    audit_rows = [row for row in rows if row.source == "audit" and not row.reading.subject.isdigit()]
    last = max((row.round for row in audit_rows if row.round is not None), default=0)
    values = {(row.run, *_key(row)): row.reading for row in audit_rows if row.round == last}
    lines: list[tuple[str, ...]] = []
    notes: list[str] = []
    for (run, level, metric, subject, labels), reading in values.items():
        if metric != "epsilon_hat":
            continue
        ceiling = values[run, level, "epsilon_hat.ceiling", subject, labels].value
        permitted_values, control_values = (
            [
                other.value
                for (other_run, other_level, other_metric, other_subject, other_labels), other in values.items()
                if (other_run, other_level, other_metric, other_subject) == (run, level, f"epsilon_hat.{part}", subject)
                and other_labels.without("part") == labels
            ]
            for part in ("permitted", "control")
        )
        about = _about(labels, "copies", "delta")
        if control_values and permitted_values:
            notes.append(_power(subject, control_values[0], permitted_values[0]))
        if permitted_values:
            control = control_values[0] if control_values else math.nan
            notes += _verdict(f"{subject}, {level}", reading.value, permitted_values[0], control, about)
        method = labels.text("method").replace("_", " ")
        lines.append(
            (
                f"{subject}, {level}, {method}",
                str(reading.n),
                _epsilon(reading.value),
                _epsilon(ceiling),
                _epsilon(permitted_values[0]) if permitted_values else "–",
                _epsilon(control_values[0]) if control_values else "–",
                about,
            )
        )
    columns = ("", "n", "epsilon at least", "ceiling", "permitted", "without noise", "neighbours and delta")
    heading = "after the last round; n counts trials; all epsilons of a line are for its neighbours and delta"
    notes += [_REMOVED] if any("add_remove" in line[-1] and line[-3] == "–" for line in lines) else []
    return Section(title="AUDITS", columns=columns, blocks=((heading, tuple(lines)),), notes=tuple(notes))


def _verdict(name: str, epsilon: float, permitted: float, control: float, about: str) -> Iterator[str]:
    """Whether an audit contradicts the guarantee; nothing where `_power` says that it could not.

    `control` is what the audit gives without noise; NaN where there was no such run.
    """
    compared = f"epsilon is at least {_epsilon(epsilon)}, and {_epsilon(permitted)} is guaranteed ({about})"
    if epsilon > permitted:
        yield f"The audit of {name} contradicts the guarantee: {compared}."
    elif control > permitted:
        yield f"The audit of {name} does not contradict the guarantee: {compared}."
    elif math.isnan(control):
        yield (
            f"The audit of {name} does not contradict the guarantee: {compared}. Its power is unknown, since it has no "
            "positive control (alarm: true)."
        )


def _power(subject: str, epsilon: float, permitted: float) -> str:
    """The result of the positive control of an audit."""
    if epsilon > permitted:
        return (
            f"Positive control of {subject}: the same scenario without noise gives epsilon >= {_epsilon(epsilon)}, "
            f"above the permitted {_epsilon(permitted)}. So this audit raises the alarm on a mechanism without "
            "noise."
        )
    if permitted == math.inf:
        return f"NO POWER: nothing bounds {subject}, so that no value is above what is permitted; add noise."
    return (
        f"NO POWER: the same scenario without noise gives epsilon >= {_epsilon(epsilon)} for {subject}, not above the "
        f"permitted {_epsilon(permitted)}. This audit cannot raise an alarm, and finding nothing says nothing. Use the "
        "settings of scenarios/audit.yaml (dp_sgd) or scenarios/audit_clients.yaml (noise at the server), more "
        "examples, or probe mechanism."
    )


def mechanism(rows: Sequence[Measurement]) -> Section:
    """The results of direct tests of a mechanism, the smallest p first."""
    test_rows = [row for row in rows if row.reading.metric == METRIC and row.round is None]
    lines, notes = [], []
    for level in dict.fromkeys(row.level for row in test_rows):
        tests = [row.reading for row in test_rows if row.level == level]
        (whole,) = [test for test in tests if test.labels.get("test") == "all"]
        others = sorted((test for test in tests if test is not whole), key=lambda test: test.value)
        alpha = whole.labels.number("alpha")
        for test in (whole, *others[:SHOWN]):
            name = f"all {whole.n} tests together" if test is whole else name_of(test.labels)
            lines.append((f"{level}: {name}", str(test.n), f"{test.value:.2g}"))
        if whole.value <= alpha:
            notes.append(f"The {level} mechanism is not the stated one: p {whole.value:.2g}, at level {alpha:g}.")
    heading = "noise, clip and batches in messages, against what the guarantee states; n counts numbers"
    columns = ("", "n", "p")
    return Section(title="MECHANISM", columns=columns, blocks=((heading, tuple(lines)),), notes=tuple(notes))


SHOWN = 3
"""Tests of a mechanism that the table shows beside that of all of them."""


_REMOVED = (
    "These runs compare n rows with n - 1 (exclusion: remove). No guarantee of this run is for such neighbours, so "
    "that nothing is permitted or forbidden; exclusion: replace keeps the number of rows."
)
"""The note where no guarantee is comparable with an audit by removal."""


def canary_clients(rows: Sequence[Measurement]) -> Section:
    """The result of canary clients at the last round, with the guarantee; a note if the result is larger."""
    estimate_rows = [row for row in rows if base_of(row.reading.metric) == "epsilon_one_shot"]
    last = max((row.round for row in estimate_rows if row.round is not None), default=0)
    # several probes may ask at several deltas, which labels tell
    values = {(row.reading.metric, row.reading.labels): row.reading for row in estimate_rows if row.round == last}
    lines, notes = [], []
    for (metric, labels), reading in values.items():
        if metric != "epsilon_one_shot":
            continue
        view = label_title("shown", labels.text("shown"))
        permitted_reading = values.get(("epsilon_one_shot.permitted", labels))
        if permitted_reading and reading.low > permitted_reading.value:
            notes.append(
                f"Above what is permitted: by the {view} epsilon is about {number(reading.value, 2)}, at least "
                f"{number(reading.low, 2)}, and {_epsilon(permitted_reading.value)} is permitted. Noise, clipping or "
                "accounting may be wrong; this is an estimate, and raises no alarm."
            )
        lines.append(
            (
                view,
                str(reading.n),
                Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n).text(2),
                _epsilon(values["epsilon_one_shot.ceiling", labels].value),
                _epsilon(permitted_reading.value) if permitted_reading else "–",
                _about(labels, "canaries", "dimensions", "delta"),
            )
        )
    columns = ("", "n", "epsilon about", "ceiling", "permitted", "neighbours and delta")
    heading = "as an observer of these would estimate it, which is no bound; n counts canary clients of all runs"
    return Section(title="CANARY CLIENTS", columns=columns, blocks=((heading, tuple(lines)),), notes=tuple(notes))


def _about(labels: Labels, *names: str) -> str:
    """The neighbours that a value is about, and further labels with their names."""
    return ", ".join(
        [labels.text("unit"), labels.text("adjacency"), *(f"{name} {_short(labels.number(name))}" for name in names)]
    )


def _short(value: float) -> str:
    return f"{value:g}"


def _key(row: Measurement) -> _Key:
    return row.level, row.reading.metric, row.reading.subject, row.reading.labels
