"""Makes the summary of a finished run from its measurements and what their components declare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from fedmem.contracts.events import count
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_LABELS, Labels, Level
from fedmem.estimation.learning import UNLEARNT, learning_warnings
from fedmem.estimation.single_examples import smallest_p
from fedmem.estimation.statistics import holm
from fedmem.estimation.two_way import FEWEST
from fedmem.reporting import privacy_sections
from fedmem.reporting.cells import Value
from fedmem.reporting.guarantee_summaries import guarantees_of
from fedmem.reporting.image_sheets import write_sheets
from fedmem.reporting.learning_rows import defined_utility
from fedmem.reporting.measures import Variant
from fedmem.reporting.multiplicity import LEVELS, adjust
from fedmem.reporting.origin import PARTS, component_text
from fedmem.reporting.reconstruction_section import leaks
from fedmem.reporting.screen_notes import power_text, schedule_limits
from fedmem.reporting.sections import headline, picking, unobserved_notes
from fedmem.reporting.single_examples import has_null
from fedmem.reporting.summary import Summary
from fedmem.reporting.verdict import below_text, list_text, verdict_of
from fedmem.results.folder import put
from fedmem.results.read import Run, read
from fedmem.results.run_summary import (
    ALPHA,
    FILE,
    Finding,
    Key,
    KindSummary,
    Measured,
    ModelsSummary,
    Place,
    RunSummary,
    sha256_of,
    summary_bytes,
)
from fedmem.scenario.caveats import caveats_of_stored


def summarise(run: Run, table: Summary | None = None) -> RunSummary:
    """The summary of a finished run.

    Args:
        run: the run.
        table: its rows, where the caller has them already.
    """
    rows = run.rows()
    table = table or Summary(run, rows)
    kinds = tuple(_kinds(table))
    manifest, scenario = run.manifest, run.scenario
    failed = run.participation["failed"]
    seed = scenario.get("seed", manifest.get("seed"))
    stored_warnings = manifest.get("warnings")
    return RunSummary(
        name=str(scenario["name"]) if "name" in scenario else "",
        id=str(manifest.get("id", "")),
        headline=headline(run),
        components={field: text for field in PARTS.values() if (text := component_text(scenario.get(field)))},
        seed=seed,
        versions=dict(manifest.get("versions") or {}),
        commit=manifest.get("commit") or "",
        measurements_sha256=sha256_of(run.path / "measurements.parquet"),
        alarms=tuple(manifest.get("alarms") or ()),
        warnings=_warnings(table, caveats_of_stored(scenario) if stored_warnings is None else stored_warnings),
        failures=int(failed.sum()),
        client_rounds=len(failed),
        verdicts=tuple(verdict_of(level, kinds) for level in LEVELS),
        kinds=kinds,
        models=tuple(_models(table)),
        leaks=tuple(leaks(table)),
        guarantees=tuple(guarantees_of(table)),
        audits=tuple(privacy_sections.audit_notes(run, rows)),
        not_significant=tuple(_places(kinds, "not significant")),
        below=tuple(_places(kinds, "below")),
        undefined=tuple(_places(kinds, "undefined")),
        limits=tuple(_limits(table, kinds)),
        power=power_text(kinds, table.num_coin_rows, table.draws),
    )


def _warnings(table: Summary, stored: Sequence[str]) -> tuple[str, ...]:
    """The stored warnings; that about learning names its p, which a manifest leaves to the table."""
    with_p = next(learning_warnings(table.learnings, numbers=True), "")
    return tuple(with_p if with_p and text.startswith(UNLEARNT) else text for text in stored)


def write_summary(folder: Path | str) -> RunSummary:
    """Writes `summary.json` into the folder of a run, if it is missing or differs; returns the record."""
    run = read(folder)
    summary = summarise(run)
    data, file = summary_bytes(summary), run.path / FILE
    if not file.is_file() or file.read_bytes() != data:
        put(file, data)
    return summary


def finish_folder(folder: Path) -> None:
    """Writes what is made from the stored files: the summary, and the images that were reconstructed."""
    write_summary(folder)
    if read(folder).reconstructions():
        write_sheets(folder)


def _kinds(table: Summary) -> Iterator[KindSummary]:
    counts = table.run.audit["kind"].value_counts()
    for kind in table.kinds:
        findings = tuple(adjust(tuple(_findings(table, kind)), _smallest_p(table, kind)))
        yield KindSummary(kind=kind, examples=int(counts[kind]), findings=findings)


def _findings(table: Summary, kind: str) -> Iterator[Finding]:
    """The values of a kind: of each measure that declares what it shows, in the order of tables.

    Each of its statistics and of its attacks is a finding of its own. Those that short tables leave out also count.
    """
    for variant in table.measures:
        if not (variant.measure.headline and variant.measure.shows):
            continue
        equal_answers = _has_equal_answers(table, variant, kind)
        for measure in (_with_null(table, variant, kind), *_finer(table, variant, kind)):
            local, aggregate = (_of_kind(table, measure, level, kind) for level in LEVELS)
            if local or aggregate:
                finding = _finding(measure, local, aggregate, _retention(table, measure, kind, local))
                is_shown = variant.headline and ("statistic" not in measure.labels or equal_answers)
                released = _released_value(table, measure, kind, aggregate)
                yield replace(finding, is_headline=is_shown, released=released)
    for declared in table.known_measures.values():
        if declared.shows == "extracted" and declared.headline:
            measure = Variant(measure=declared, title=f"{declared.title}, in − out", null=0.0)
            local, aggregate = (_extraction_difference(table, declared, level, kind) for level in LEVELS)
            if local or aggregate:
                yield _finding(measure, local, aggregate, None)


def _with_null(table: Summary, variant: Variant, kind: str) -> Variant:
    """The variant or, where the null of a kind is unknown, the gain that its measure declares, if it is there."""
    gain = table.known_measures.get(variant.measure.gain)
    if gain is None or has_null(table, variant, kind):
        return variant
    measure = replace(gain, shows=variant.measure.shows)
    judged = replace(variant, measure=measure, title=gain.title, null=gain.null)
    has_rows = any(_of_kind(table, judged, level, kind) for level in LEVELS)
    return judged if has_rows else variant


def _finding(
    variant: Variant, local: Measured | None, aggregate: Measured | None, retention: Measured | None
) -> Finding:
    return Finding(
        shows=variant.measure.shows,
        metric=variant.metric,
        title=variant.title,
        unit=variant.unit,
        digits=variant.digits,
        labels=dict(variant.labels.items),
        local=local,
        aggregate=aggregate,
        retention=retention,
    )


def _has_equal_answers(table: Summary, variant: Variant, kind: str) -> bool:
    """Whether a value comes from equal answers alone, which shows nothing."""
    values = (table.local_values(variant, kind), table.value(variant.metric, "global", kind, variant.labels))
    return any(value is not None and math.isnan(value.low) and value.value == variant.null for value in values)


def _finer(table: Summary, variant: Variant, kind: str) -> Iterator[Variant]:
    """The same by finer statistics, as far as they were measured."""
    statistics = {
        labels.text("statistic"): None
        for _, subject, labels, _ in table.entries(variant.metric, variant.labels)
        if subject == kind and labels.get("statistic") and labels.without("statistic", "place") == variant.labels
    }
    for statistic in statistics:
        yield replace(variant, labels=variant.labels.plus(statistic=statistic), title=f"{variant.title} by {statistic}")


def _labels_at(table: Summary, variant: Variant, level: Level, kind: str) -> Labels:
    """The labels of the row of a kind: at level local those of the owning client, where owners are distinguished."""
    owner = variant.labels.plus(place="owner")
    is_by_owner = level == "local" and table.value(variant.metric, level, kind, owner) is not None
    return owner if is_by_owner else variant.labels


def _of_kind(table: Summary, variant: Variant, level: Level, kind: str) -> Measured | None:
    labels = _labels_at(table, variant, level, kind)
    value = table.value(variant.metric, level, kind, labels)
    if value is None:
        return None
    null = table.null_of(variant, level, kind)
    measured = _measured_value(value, null, tuple(_keys(table, variant.metric, level, kind, labels)))
    if not math.isnan(value.low + value.high):
        return measured
    return _of_few_examples(table, variant, level, kind, measured)


def _released_value(table: Summary, variant: Variant, kind: str, aggregate: Measured | None) -> Measured | None:
    """The value of the last aggregate on all examples, where it is another one; rows of rounds have no keys here."""
    value = table.value(variant.metric, "global", kind, variant.labels, round_number=table.last_round)
    if value is None or (aggregate is not None and (value.value, value.n) == (aggregate.value, aggregate.n)):
        return None
    return _measured_value(value, table.null_of(variant, "global", kind), ())


def _keys(table: Summary, metric: str, level: Level, subject: str, labels: Labels) -> Iterator[Key]:
    """The rows of a value, of its null and of its p, as far as they are there; none of what the manifest has."""
    for name in (metric, f"{metric}.null", f"{metric}.p"):
        if name in table.stored_metrics and table.value(name, level, subject, labels) is not None:
            source = labels.text("source")
            plain = labels.without("source")
            yield Key(metric=name, level=level, subject=subject, source=source, labels=dict(plain.items))


def _measured_value(value: Value, null: float, keys: tuple[Key, ...]) -> Measured:
    return Measured(
        value=value.value,
        low=value.low,
        high=value.high,
        n=value.n,
        null=null,
        p=value.p,
        saturated=value.saturated,
        keys=keys,
    )


def _of_few_examples(table: Summary, variant: Variant, level: Level, kind: str, measured: Measured) -> Measured:
    """A kind of fewer than eight examples has no interval: its examples are tested one by one, adjusted by Holm."""
    audit = table.run.audit
    subjects = [str(subject) for subject in audit[audit["kind"] == kind]["subject"].tolist()]
    labels = variant.labels.plus(place="owner") if level == "local" else variant.labels
    values = {subject: table.value(variant.metric, level, subject, labels) for subject in subjects}
    if len(subjects) >= FEWEST:
        return measured
    p_of_examples = {
        subject: p
        for subject, value in values.items()
        if value is not None and not math.isnan(p := _p_of_example(table, variant, level, subject, value))
    }
    if not p_of_examples:
        return measured
    keys = [key for subject in p_of_examples for key in _keys(table, variant.metric, level, subject, labels)]
    p_values = tuple(p_of_examples.values())
    adjusted = holm(p_values).tolist()
    num_significant = sum(p <= ALPHA for p in adjusted)
    return replace(
        measured,
        p=min(adjusted),
        examples=num_significant,
        p_of_examples=p_values,
        keys=(*measured.keys, *keys),
    )


def _smallest_p(table: Summary, kind: str) -> float:
    """The smallest p that an example of a kind could have: by its coins, with one run by its references."""
    audit = table.run.audit
    floor = smallest_p(np.array(audit[audit["kind"] == kind]["is_in"].tolist()).T[: table.num_coin_rows])
    return 1 / (1 + max(table.run.reference_counts.get(kind, ()), default=0)) if math.isnan(floor) else floor


def _p_of_example(table: Summary, variant: Variant, level: Level, subject: str, value: Value) -> float:
    """The p of an example; of one run alone it is that of its rank."""
    if math.isnan(value.p) and value.n == 1 and variant.measure.ranked == "value":
        return float(table.p_of_ranks[level][int(subject)])
    return value.p


def _retention(table: Summary, variant: Variant, kind: str, local: Measured | None) -> Measured | None:
    ratio = table.retention(variant, kind)
    if ratio is None:
        return None
    labels, value = ratio
    key = Key(metric="retention", level="global", subject=kind, labels=dict(labels.items))
    return _measured_value(replace(value, saturated=local is not None and local.saturated), 0.0, (key,))


def _extraction_difference(table: Summary, declared: Measure, level: Level, kind: str) -> Measured | None:
    """By how much more often secrets that were in are extracted than those that were out."""
    metric, place = f"{declared.name}.difference", "owner" if level == "local" else None
    for row_level, subject, labels, value in table.entries(metric, Labels.of(place=place)):
        if (row_level, subject) == (level, kind):
            keys = tuple(_keys(table, metric, level, kind, labels))
            return _measured_value(value, 0.0, keys)
    return None


def _models(table: Summary) -> Iterator[ModelsSummary]:
    """Values of whole models: utility first, then measures that no other section shows."""
    for section in ("utility", ""):
        for declared in table.known_measures.values():
            if declared.section != section or not declared.headline:
                continue
            label_sets = [NO_LABELS] if section else _label_sets(table, declared)
            for labels in label_sets:
                declared = defined_utility(table, declared)
                local, aggregate = (_of_models(table, declared, level, labels) for level in LEVELS)
                if local or aggregate:
                    yield ModelsSummary(
                        metric=declared.name,
                        title=", ".join((declared.title, *labels.words())),
                        unit=declared.unit_text,
                        digits=declared.digits,
                        local=local,
                        aggregate=aggregate,
                    )


def _label_sets(table: Summary, declared: Measure) -> list[Labels]:
    return list(dict.fromkeys(labels for _, about, labels, _ in table.entries(declared.name) if not about))


def _of_models(table: Summary, declared: Measure, level: Level, labels: Labels) -> Measured | None:
    value = table.value(declared.name, level, "", labels)
    if value is None:
        return None
    return _measured_value(value, declared.null, tuple(_keys(table, declared.name, level, "", labels)))


def _values(kinds: Sequence[KindSummary]) -> Iterator[tuple[Place, Measured]]:
    """The values that tables show; those of control attacks are in the report."""
    for kind in kinds:
        for finding in kind.findings:
            if not (finding.is_headline or "statistic" in finding.labels):
                continue
            sides: tuple[tuple[Literal["local", "global", "retention"], Measured | None], ...] = (
                ("local", finding.local),
                ("global", finding.aggregate),
                ("retention", finding.retention),
            )
            for level, value in sides:
                if value is not None:
                    yield Place(kind=kind.kind, title=finding.title, level=level), value


def _places(kinds: Sequence[KindSummary], state: str) -> Iterator[Place]:
    return (place for place, value in _values(kinds) if value.state == state)


def _limits(table: Summary, kinds: Sequence[KindSummary]) -> Iterator[str]:
    """The limits of these numbers, one sentence each."""
    values = [(place, value) for place, value in _values(kinds) if place.level != "retention"]
    scenario, manifest = table.run.scenario, table.run.manifest
    yield "The attacks are lower limits: a failed attack does not show that none succeeds."
    if len({place.kind for place, _ in values}) > 1:
        yield (
            "p is adjusted over the measures of a kind at a level (Holm), not over kinds and levels. Without "
            "memorisation, up to one in twenty of these pairs is called memorised or detectable."
        )
    if parted := [(place, value) for place, value in values if value.p_and_interval_differ]:
        names = list_text(
            [f"{place.title} of {place.kind} ({place.level}, p {value.deciding_p:.2g})" for place, value in parted]
        )
        yield f"Unclear, since interval and p disagree, which counts as not significant: {names}."
    if below := [place for place, value in values if value.state == "below"]:
        yield below_text([f"{place.title} of {place.kind} ({place.level})" for place in below])
    if saturated := [place for place, value in values if value.saturated]:
        names = list_text([f"{place.title} of {place.kind} ({place.level})" for place in saturated])
        yield f"Saturated, so that differences are hidden: {names}."
    if power := power_text(kinds, table.num_coin_rows, table.draws):
        yield f"{power}."
    yield from schedule_limits(tuple(guarantees_of(table)))
    yield from unobserved_notes(table)
    if text := picking(table.run):
        yield text
    if diverged := (manifest.get("not_finite") or {}).get("evidence.loss", {}).get("nan", 0):
        yield f"{diverged} stored losses are not numbers, because models diverged."
    if isinstance(scenario.get("initial_weights"), Mapping):
        yield "All runs start from the weights of one file; intervals do not cover the effect of other weights."
    elif scenario.get("initial_weights") == "shared":
        yield "All runs share their initial weights; intervals do not cover the effect of other weights."
    if scenario.get("batches") == "shared":
        yield "All runs have the same batches: values are conditional on them, and intervals do not cover others."
    if (twins := int(scenario.get("twins", 1))) > 1:
        yield f"Runs are sets of {twins} twins with the same inclusion; intervals and p count each set once."
    for kind, draws in table.draws.items():
        drawn = count(draws, "draw")
        yield f"Examples of {kind} are in or out together in {drawn}; intervals and p count each draw once."
    yield "One seed; `fedmem compare FILE --seeds 0:5` shows how much seeds differ."
