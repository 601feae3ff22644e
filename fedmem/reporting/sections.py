"""The sections of a table, each from the rows of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fedmem.contracts.events import count
from fedmem.contracts.measure import Measure, base_of
from fedmem.contracts.measurement import NO_LABELS, Labels
from fedmem.errors import RunError
from fedmem.reporting import p_and_interval, privacy_sections
from fedmem.reporting.agreement_section import agreement_section
from fedmem.reporting.caption import RELEASED
from fedmem.reporting.cells import AT_FLOOR, Section, Value
from fedmem.reporting.datamodeling_section import datamodeling_section
from fedmem.reporting.extraction_section import extraction_section
from fedmem.reporting.influence_sections import client_influence_section, cross_influence_section
from fedmem.reporting.learning_rows import learning_blocks, learning_notes
from fedmem.reporting.measures import Variant, measure_of, terms_of
from fedmem.reporting.proxy_section import proxy_section
from fedmem.reporting.reconstruction_section import reconstruction_section
from fedmem.reporting.row_cells import count_cell, value_cell
from fedmem.reporting.single_examples import notes_without_null, row_of_gain, single_examples_section
from fedmem.reporting.summary import Summary
from fedmem.results.read import Run
from fedmem.scenario.caveats import caveats_of_stored


def sections(summary: Summary, *, everything: bool = False) -> Iterator[Section]:
    """The table part by part; with `everything` also control attacks and the models of the other clients."""
    measures = [measure for measure in summary.measures if measure.headline or everything]
    yield _levels(summary, measures, others=everything)
    yield single_examples_section(summary, measures)
    yield extraction_section(summary, everything=everything)
    yield _retention(summary, measures)
    yield _differences(summary, measures)
    yield cross_influence_section(summary, everything=everything)
    yield client_influence_section(summary, everything=everything)
    yield agreement_section(summary, everything=everything)
    yield datamodeling_section(summary)
    yield proxy_section(summary, everything=everything)
    yield _utility(summary, everything=everything)
    yield _other_clients_section(summary, everything=everything)
    yield from privacy_sections.sections(summary.run)


def omitted_measures(summary: Summary) -> str:
    """The names of measures that only the report shows; empty without any."""
    names = [_short_title(measure) for measure in summary.measures if not measure.headline]
    titles = list(dict.fromkeys(name for name in names if " TPR" not in name))
    if any(
        labels.get("place") == "others"
        for measure in summary.measures
        for _, _, labels, _ in summary.entries(measure.metric)
    ):
        titles.append("the other clients' models")
    sentences = [f"Also measured, in the report: {'; '.join(titles)}."] if titles else []
    if others := _measured_elsewhere(summary):
        sentences.append(f"In measurements.parquet alone: {'; '.join(others)}.")
    return " ".join(sentences)


def _short_title(variant: Variant) -> str:
    """The title of a variant; that of the measure for values that are drawn against a label, whatever their labels."""
    if variant.measure.against:
        return variant.measure.title
    return variant.title.partition(" AUC")[0]


def _measured_elsewhere(summary: Summary) -> list[str]:
    """The probes of which no table shows a measure, with their measures."""
    probes = [str(probe.get("kind")) for probe in summary.run.scenario.get("probes") or ()]
    metrics_by_source: dict[str, dict[str, None]] = {}
    for row in summary.run.rows():
        metrics_by_source.setdefault(row.source, {})[base_of(row.reading.metric)] = None
    texts = []
    for probe in dict.fromkeys(probes):
        metrics = list(metrics_by_source.get(probe.rpartition(":")[0].rpartition(".")[2] or probe, {}))
        sections_of_metrics = {measure_of(metric, summary.known_measures).section for metric in metrics}
        if metrics and sections_of_metrics == {"none"}:
            texts.append(f"probe {probe} ({', '.join(metrics)})")
    return texts


def legend(table_sections: Sequence[Section], summary: Summary) -> list[tuple[str, str]]:
    """The words that these sections use, with what they mean.

    A word counts only as a whole word. In cells and notes it does not count where it is the name of a kind of audit
    example, since scenarios choose these names freely.
    """
    titles: list[str] = []
    free: list[str] = []
    for section in table_sections:
        blocks = [(heading, rows) for heading, rows in section.blocks if rows]
        if blocks:
            titles += [section.title.lower(), *section.columns]
            free += section.notes
        for heading, rows in blocks:
            titles.append(heading)
            free += [cell for row in rows for cell in row]
    text = "\n".join(free)
    for kind in sorted(summary.kinds, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(kind)}(?!\w)", "", text)
    text += "\n" + "\n".join(titles)
    return [
        (term, meaning) for term, meaning in terms_of(summary.known_measures) if re.search(_word_pattern(term), text)
    ]


def _word_pattern(term: str) -> str:
    """A pattern for a term as a whole word, or its plural.

    >>> [bool(re.search(_word_pattern("prior"), text)) for text in ("the best prior", "two priors", "priority", "≈0.3")]
    [True, True, False, False]
    >>> bool(re.search(_word_pattern("≈"), "≈0.3"))
    True
    """
    first = r"(?<!\w)" if re.match(r"\w", term) else ""
    last = r"s?(?!\w)" if re.search(r"\w$", term) else ""
    return f"{first}{re.escape(term)}{last}"


def _levels(summary: Summary, measures: Sequence[Variant], *, others: bool) -> Section:
    """Local and global values, measure by measure, then reconstruction."""
    blocks = []
    parted_places: list[p_and_interval.Place] = []
    has_equal_answers = False
    for measure in measures:
        rows = []
        for kind in summary.kinds:
            owner = summary.local_values(measure, kind)
            elsewhere = summary.value(measure.metric, "local", kind, measure.labels.plus(place="others"))
            everywhere = summary.value(measure.metric, "global", kind, measure.labels)
            if owner or everywhere:
                values = (owner, everywhere, elsewhere) if others else (owner, everywhere)
                rows.append((kind, count_cell(*values), *(value_cell(value, measure) for value in values)))
                parted_places += [
                    p_and_interval.Place(measure=measure, kind=kind, level=level)
                    for level, value in (("local", owner), ("global", everywhere))
                    if value is not None and p_and_interval.differ(value, summary.null_of(measure, level, kind))
                ]
                finer = list(_rows_of_statistics(summary, measure, kind, values))
                has_equal_answers |= bool(finer) and any(_is_of_equal_answers(value, measure.null) for value in values)
                rows += finer
                rows += row_of_gain(summary, measure, kind, others=others)
            release = summary.value(measure.metric, "global", kind, measure.labels, round_number=summary.last_round)
            if release and _is_other(release, everywhere):
                blank = ("",) if others else ()
                rows.append((f"{kind}{RELEASED}", count_cell(release), "", value_cell(release, measure), *blank))
        blocks.append((measure.heading, tuple(rows)))
    notes = [*unobserved_notes(summary), *notes_without_null(summary, measures)]
    cells = [cell for _, rows in blocks for row in rows for cell in row[2:]]
    if (num_p := sum(" p " in cell for cell in cells)) > 1:
        has_floor = any(AT_FLOOR in cell for cell in cells)
        floor = f" {AT_FLOOR} marks the smallest p that other random inclusions allow." * has_floor
        notes.append(
            f"The {num_p} values of p are not adjusted for their number: without any memorisation about one in twenty "
            f"is 0.05 or less. VERDICT adjusts them over all measures of a kind at a level.{floor}"
        )
    if has_equal_answers:
        notes.append(
            "Where every run gives the same answers, self-influence by right and wrong answers is 0 and its p is 1. "
            "That is no sign that nothing is memorised: the row by probability compares how sure the models are."
        )
    notes += p_and_interval.notes(summary, parted_places)
    for source in summary.leaks:
        source_blocks, source_notes = reconstruction_section(summary, source, others=others)
        # With several attacks every block says whose it is.
        whose = f"{source}: " if len(summary.leaks) > 1 else ""
        blocks += [(whose + heading, block) for heading, block in source_blocks]
        notes += [whose + note for note in source_notes]
    columns = ("", "n", "local", "global", *(("local, others",) if others else ()))
    return Section(title="LOCAL AND GLOBAL", columns=columns, blocks=tuple(blocks), notes=tuple(notes))


def _is_of_equal_answers(value: Value | None, null: float) -> bool:
    """Whether a value comes from equal answers alone: it has no interval and is at its null."""
    return value is not None and math.isnan(value.low) and value.value == null


def _rows_of_statistics(
    summary: Summary, measure: Variant, kind: str, values: Sequence[Value | None]
) -> Iterator[tuple[str, ...]]:
    """The same by finer statistics, wherever they were measured."""
    found = {
        str(labels.get("statistic")): None
        for _, subject, labels, _ in summary.entries(measure.metric, measure.labels)
        if subject == kind and labels.get("statistic") and labels.without("statistic", "place") == measure.labels
    }
    for statistic in found:
        labels = measure.labels.plus(statistic=statistic)
        finer = [
            summary.value(measure.metric, "local", kind, labels.plus(place="owner")),
            summary.value(measure.metric, "global", kind, labels),
            summary.value(measure.metric, "local", kind, labels.plus(place="others")),
        ][: len(values)]
        if any(finer):
            cells = (value_cell(value, measure) for value in finer)
            yield (f"{kind}{_BY}{statistic}", count_cell(*finer), *cells)


_BY = ", by "


def unobserved_notes(summary: Summary) -> Iterator[str]:
    """How many examples have no local value, because no observed round has their owning client."""
    owners = summary.run.audit["owner"].to_numpy()
    observed_rounds = {when for when in summary.observed_rounds if when > 0}
    parts = summary.run.participation
    if not observed_rounds or not len(parts):
        return
    seen = set(parts[parts["round"].isin(observed_rounds)]["client"].tolist())
    unseen = [int(owner) for owner in owners.tolist() if owner >= 0 and owner not in seen]
    if unseen:
        client = ("client", "clients")[len(set(unseen)) > 1]
        yield (
            f"{len(unseen)} of {count(len(owners), 'audit example')} {('is', 'are')[len(unseen) > 1]} left out of all "
            f"rows but released: {('its', 'their')[len(unseen) > 1]} "
            f"{len(set(unseen))} owning {client} took part in no observed round. Observe more rounds "
            "(observe.every: 1), or read the rows released."
        )


def _is_other(release: Value, everywhere: Value | None) -> bool:
    """Whether the released aggregate shows anything else than the summary does: a value, its n, or its FPR."""
    if everywhere is None:
        return True
    rates = [0.0 if math.isnan(value.fpr) else value.fpr for value in (release, everywhere)]
    return (release.value, release.n, rates[0]) != (everywhere.value, everywhere.n, rates[1])


def _retention(summary: Summary, measures: Sequence[Variant]) -> Section:
    """The share of the local effect that the aggregate keeps."""
    blocks = []
    for measure in measures:
        rows = []
        for kind in summary.kinds:
            ratio = summary.retention(measure, kind)
            if ratio is None:
                continue
            _, value = ratio
            local = summary.value(measure.metric, "local", kind, measure.labels.plus(place="owner"))
            value = replace(value, saturated=local is not None and local.saturated)
            text = "undefined" if math.isnan(value.value) else value.text(2)
            rows.append((kind, str(value.n), text))
        blocks.append((measure.title, tuple(rows)))
    note = (
        "Undefined: there is no local effect to divide by. It has no interval, its p is above 0.05, or its interval "
        "contains the null or comes within a tenth of the effect of it."
    )
    has_undefined = any(row[-1] == "undefined" for _, rows in blocks for row in rows)
    return Section(
        title="RETENTION",
        columns=("", "n", "global / local"),
        blocks=tuple(blocks),
        notes=(note,) if has_undefined else (),
    )


def _differences(summary: Summary, measures: Sequence[Variant]) -> Section:
    """Local against global within a kind, then kinds against each other within a level."""
    blocks = []
    unexplained: list[str] = []
    for measure in measures:
        rows: dict[str, list[tuple[str, ...]]] = {": local − global": [], ", local": [], ", global": []}
        for level, subject, labels, value in summary.entries(f"{measure.metric}.difference", measure.labels):
            contrast, other = labels.get("contrast"), labels.get("minus")
            if labels.without("contrast", "minus", "place") != measure.labels or labels.get("place") == "others":
                continue
            cells = (str(value.n), value.text(measure.digits))
            if contrast == "levels":
                sides = _sides(summary, measure, ("local", subject), ("global", subject))
                rows[": local − global"].append((subject, *cells, _direction(value, "local", sides)))
            elif contrast == "kinds" and other in summary.kinds:
                sides = _sides(summary, measure, (level, subject), (level, other))
                rows[f", {level}"].append((f"{subject} − {other}", *cells, _direction(value, "first", sides)))
                if value.is_significant and p_and_interval.is_evident_in_neither(sides):
                    unexplained.append(f"{measure.title}, {level}, {subject} − {other}")
        name = measure.title
        blocks += [(f"{name}{what}", tuple(block_rows)) for what, block_rows in rows.items()]
    number = sum(len(block_rows) for _, block_rows in blocks)
    note = (
        f"These are {number} comparisons, and their intervals are not adjusted for that: where nothing differs, about "
        "one in twenty is called higher or lower. `fedmem compare FILE --seeds 0:5` adjusts, over seeds."
    )
    return Section(
        title="DIFFERENCES",
        columns=("", "n", "difference", ""),
        blocks=tuple(blocks),
        notes=((note,) if number > 1 else ()) + tuple(p_and_interval.note_of_kinds(unexplained)),
    )


def _sides(summary: Summary, measure: Variant, *places: tuple[str, str]) -> list[Value]:
    """The values that are compared, each at a level and of a kind, as far as they are there."""
    values = [
        summary.value(measure.metric, level, kind, measure.labels.plus(place="owner" if level == "local" else None))
        for level, kind in places
    ]
    return [value for value in values if value is not None]


def _direction(value: Value, first: str, sides: Sequence[Value]) -> str:
    """Which of the two is higher, as far as the interval and the ends of the measure show it."""
    at_end = [side.saturated for side in sides]
    if at_end and all(at_end):
        return "both saturated"
    if not value.is_significant:
        return "undefined" if math.isnan(value.low) else "not significant"
    return f"{first} {'higher' if value.low > 0 else 'lower'}{', capped' * any(at_end)}"


def _utility(summary: Summary, *, everything: bool) -> Section:
    """The utility of models, and how much better they predict their own data."""
    rows: list[tuple[str, ...]] = []
    for measure in summary.known_measures.values():
        if measure.section == "utility":
            rows += _of_models(summary, measure, NO_LABELS, everything=everything)
    blocks = [("means over models; n counts models, local/global", tuple(rows))]
    blocks += learning_blocks(summary)
    notes = tuple(learning_notes(summary))
    return Section(title="UTILITY", columns=("", "n", "local", "global"), blocks=tuple(blocks), notes=notes)


def _of_models(summary: Summary, measure: Measure, labels: Labels, *, everything: bool) -> Iterator[tuple[str, ...]]:
    """Local and global values that are about no kind: the mean, and with `everything` single clients as well."""
    subjects = [""]
    if everything:
        all_subjects = {about for _, about, _, _ in summary.entries(measure.name) if about} - {*summary.kinds}
        subjects += sorted(
            (about for about in all_subjects if not about.isdigit()), key=lambda about: (len(about), about)
        )
    name = ", ".join(filter(None, (measure.title, *labels.words(), measure.unit_text)))
    for subject in subjects:
        values = [summary.value(measure.name, level, subject, labels) for level in ("local", "global")]
        if any(values):
            cells = (value.text(measure.digits) if value else "–" for value in values)
            yield (f"{name}{', ' * bool(subject)}{summary.subject_text(subject)}", count_cell(*values), *cells)


def _other_clients_section(summary: Summary, *, everything: bool) -> Section:
    """Measures that no other section shows, such as those of a probe of one's own."""
    rows: list[tuple[str, ...]] = []
    for measure in summary.known_measures.values():
        if not measure.section and (measure.headline or everything):
            label_sets = dict.fromkeys(labels for _, about, labels, _ in summary.entries(measure.name) if not about)
            for labels in label_sets:
                rows += _of_models(summary, measure, labels, everything=everything)
    block = ("n counts what the component says", tuple(rows))
    return Section(title="OTHER MEASURES", columns=("", "n", "local", "global"), blocks=(block,))


def headline(run: Run) -> str:
    """One line about what was run."""
    scenario, audit = run.scenario, run.audit
    if missing := [key for key in ("name", "runs", "rounds", "clients") if key not in scenario]:
        raise RunError(f"{run.path / 'scenario.yaml'} is damaged (it has no {missing[0]}); put a copy of the file back")
    law = scenario.get("coins", {}).get("law", "balanced") if scenario["runs"] != 1 else ""
    texts = {"": "each in or out at random", "balanced": "each in half of the runs", "rate": "each in as many runs"}
    coins = texts.get(law, "each in at the rate of its run")
    twins = f" with {scenario['twins']} twins each" if scenario.get("twins", 1) > 1 else ""
    conditional = "; conditional on one sequence of batches" if scenario.get("batches") == "shared" else ""
    return (
        f"{scenario['name']}: {count(scenario['runs'], 'run')}{twins} of {count(scenario['rounds'], 'round')}, "
        f"{count(scenario['clients'], 'client')}, {count(len(audit), 'audit example')}, {coins}{conditional}"
    )


def picking(run: Run) -> str:
    """A sentence on how clients were picked; empty if all runs share cohorts that were drawn blindly."""
    scenario, pilot = run.scenario, run.manifest.get("pilot")
    if pilot:
        failure_note = f"; {pilot['failed']} of its client rounds failed" if pilot["failed"] else ""
        return f"The cohorts were picked by the losses or norms of a pilot run, which no estimate reads{failure_note}."
    if scenario.get("roster") == "per_run" and "local" in scenario.get("observe", {}).get("levels", ()):
        return (
            "Each run drew a participation schedule of its own. Whether a client's model is there to be read may "
            "depend on which of its examples are in. So nothing local compares in with out. Only the aggregate "
            "does."
        )
    return ""


def alarms(run: Run) -> list[str]:
    """Facts that a reader must know before any number; of many alarms the first three, then their number."""
    texts = [f"ALARM: {alarm}" for alarm in run.manifest.get("alarms") or []]
    more = len(texts) - 3
    return texts if more <= 0 else [*texts[:3], f"ALARM: and {more} more, all in manifest.json"]


def warnings(run: Run) -> list[str]:
    """Warnings of a valid run, which a reader needs to read its numbers."""
    stored_texts = run.manifest.get("warnings")
    texts = caveats_of_stored(run.scenario) if stored_texts is None else stored_texts
    return [f"WARNING: {text}" for text in texts]
