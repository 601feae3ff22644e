"""The disk space of the folder of a run, file by file, before anything is trained.

Small files are written in full, to a temporary folder. Those of models are counted in rows. The lower bytes of floats
do not compress, and decide the size of evidence. Its other columns nearly vanish.
The constants below are measured. A test compares the sums with folders of finished runs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.families import nested_components
from fedmem.contracts.measurement import Level
from fedmem.contracts.needs import measures_of
from fedmem.contracts.signal import signal_declaration, stored_names
from fedmem.execution import model_space

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

LOSS, MARGIN = 7.05, 7.2
"""Bytes of a loss and of a margin in float64. Up to 8 % less where all examples are equally easy."""

MARGIN_OF_TWO = 4.8
"""Bytes of a margin of two classes: a difference of two logits in float32, whose lower digits are zeros."""

ROUNDED_MARGIN = 4.0
"""Bytes of a margin in float32."""

LOSS_OF_TEXT, ROUNDED_MARGIN_OF_TEXT = 6.9, 3.5
"""Bytes of the loss or the margin of a passage; means over tokens vary less."""

IS_CORRECT, SHARE_CORRECT = 0.08, 1.4
"""Bytes of right or wrong, and of a share of tokens."""

ROWS_OF_PAGE = 20_000
"""Rows that are compressed together: what repeats within a page costs once."""

BLOCK, NUMBER = 1800, 0.03
"""Bytes of the columns and the description of a block of evidence, and of the number of an example at each model."""

QUANTILE, RANK = 3.1, 1.5
"""Bytes of a quantile of reference losses, and of the ranks of a canary at a model."""

SIGNAL = 6.9
"""Bytes of a value of a signal."""

READING, PART = 9.3, 0.3
"""Bytes of a row of measurements, and of a participation."""

PAGE_OF_REPORT, FIGURE, CURVE, SHEET = 210_000, 20_000, 18_000, 1_300_000
"""Bytes of the page without figures, of a figure, of the curves of a kind, and of reconstructed examples; rough."""

FIGURES = 2.1
"""Figures of a headline measure."""


def bytes_by_file(
    scenario: Scenario,
    federation: Federation,
    models: Mapping[Level, int],
    sets: Mapping[Level, Mapping[str, int]],
    saved: int,
    set_signals: int = 0,
) -> dict[str, int]:
    """Bytes of the files of a run, largest first; arrays that probes keep are not among them.

    Args:
        scenario: The scenario.
        federation: Its federation, whose runs may be fewer.
        models: How many models are looked at, by level.
        sets: How many examples of each set they are evaluated on, by level.
        saved: How many models are saved.
        set_signals: Bytes of the signals on other sets than the audit set.
    """
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    bytes_by_part = {
        "evidence": round(_evidence(scenario, federation, models, sets)),
        "references": round(_references(scenario, federation, models)),
        **({"signals": of_audit} if (of_audit := round(_signals(scenario, federation, models))) else {}),
        **({"set_signals": set_signals} if set_signals else {}),
        "audit": _audit_and_names(federation),
        "population": _stored_population(scenario, federation),
        "measurements": round(READING * _readings(scenario, federation, models)),
        "report": _report(scenario, len(federation.audit.kinds)),
        "params": model * scenario.runs * scenario.save.params,
        **({"models": model_space.bytes_of(saved, federation)} if saved else {}),
    }
    return dict(sorted(bytes_by_part.items(), key=lambda item: -item[1]))


def _evidence(
    scenario: Scenario,
    federation: Federation,
    models: Mapping[Level, int],
    sets: Mapping[Level, Mapping[str, int]],
) -> float:
    """Bytes of `evidence.parquet`."""
    observed, total = scenario.observe.test, 0.0
    is_rounded = observed.precision == "float32"
    has_steady_numbers = is_rounded or observed.rows is not None
    rounds = len(scenario.observed_rounds)
    for level, count in models.items():
        equal = scenario.runs if level == "global" and scenario.initial_weights != "per_run" else 0
        for name, examples in sets[level].items():
            if not examples:
                continue
            values, correct = bytes_of_row(federation, rounded=is_rounded and name == "test")
            stored = (count - equal) * examples + distinct_rows(equal, examples)
            numbers = NUMBER if has_steady_numbers else bytes_of_number(examples)
            total += values * stored + (correct + numbers) * count * examples
            total += (rounds - (level == "local")) * (BLOCK + examples)
    return total


def bytes_of_number(examples: int) -> float:
    """Bytes of the number of an example at each model: so many bits, which repeat for each model.

    >>> round(bytes_of_number(256), 2), round(bytes_of_number(10_000), 2)
    (0.04, 0.91)
    """
    bits = max(1, math.ceil(math.log2(examples)))
    until_repeated = examples * 8 // math.gcd(8, examples * bits)
    return NUMBER + min(1.0, until_repeated / ROWS_OF_PAGE) * bits / 8


def bytes_of_row(federation: Federation, *, rounded: bool) -> tuple[float, float]:
    """Bytes of the floats of a row of evidence, and of whether it is correct; `rounded` margins are float32."""
    if federation.audit.examples.several_targets:
        return ROUNDED_MARGIN_OF_TEXT if rounded else 2 * LOSS_OF_TEXT, SHARE_CORRECT
    if rounded:
        return ROUNDED_MARGIN, IS_CORRECT
    return LOSS + (MARGIN_OF_TWO if federation.num_classes == 2 else MARGIN), IS_CORRECT


def distinct_rows(models: int, examples: int) -> int:
    """How many rows are stored of equal models: those of one model for each page.

    >>> distinct_rows(16, 100), distinct_rows(128, 10_000)
    (100, 640000)
    """
    return examples * min(models, math.ceil(models * examples / ROWS_OF_PAGE))


def _references(scenario: Scenario, federation: Federation, models: Mapping[Level, int]) -> float:
    """Bytes of `references.parquet`: an aggregate has the quantiles of all labels, a client those that it holds."""
    from fedmem.observation.evidence import QUANTILES

    audit, quantiles, ranks = federation.audit, 0.0, 0
    for family in federation.references:
        in_family = audit.kind == family.family
        labels = len(np.unique(audit.examples.labels[in_family]))
        pairs = np.unique(np.stack([audit.owner[in_family], audit.examples.labels[in_family]]), axis=1).shape[1]
        quantiles += models.get("local", 0) * pairs / scenario.clients
        whole = models.get("global", 0) - scenario.runs * (scenario.initial_weights != "per_run")
        quantiles += max(0, whole) * labels
        ranks += sum(models.values()) * int(in_family.sum())
    return QUANTILE * QUANTILES * quantiles + RANK * ranks


def _signals(scenario: Scenario, federation: Federation, models: Mapping[Level, int]) -> float:
    """Bytes of `signals.parquet`; at clients some signals are read on the client's own examples alone."""
    examples, rounds = len(federation.audit), scenario.observed_rounds
    equal = scenario.runs * (scenario.initial_weights != "per_run")
    total = 0.0
    for signal in scenario.signals:
        if signal_declaration(signal).set != "audit":
            continue
        due = _share_due(signal.every, rounds)
        levels = [level for level in signal.levels if models.get(level)]
        owners = scenario.clients if signal_declaration(signal).owners_only else 1
        read_at = {"global": models.get("global", 0) - equal, "local": models.get("local", 0) / owners}
        read = sum(read_at[level] for level in levels)
        names = len(stored_names(signal, federation))
        total += names * due * (SIGNAL * examples * read + BLOCK * len(levels) * len(rounds))
    return total


def _share_due(every: int | None, rounds: Sequence[int]) -> float:
    """The share of observed rounds that are multiples of `every`."""
    return sum(every is None or number % every == 0 for number in rounds) / len(rounds)


def _audit_and_names(federation: Federation) -> int:
    """Bytes of `audit.parquet` and `examples.json`, which are written to find out."""
    from fedmem.execution.bank import targets_of
    from fedmem.results.examples import write_names
    from fedmem.results.write import write_audit

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_audit(folder, federation.audit, targets_of(federation), federation.label_counts)
        write_names(folder, federation)
        return sum(file.stat().st_size for file in folder.iterdir())


def _stored_population(scenario: Scenario, federation: Federation) -> int:
    """Bytes of the inputs of the population, where an attack reads them; at most, since they may compress."""
    from fedmem.execution.bank import inputs_of

    return sum(values.nbytes for values in inputs_of(scenario, federation).values())


def _readings(scenario: Scenario, federation: Federation, models: Mapping[Level, int]) -> float:
    """Rows of measurements, about: four of each probe at each model, and of each measure its kinds and examples."""
    kinds, examples, rounds = len(federation.audit.kinds), len(federation.audit), len(scenario.observed_rounds)
    readings = 4.0 * sum(
        _share_due(probe.every, scenario.observed_rounds) * models.get(level, 0)
        for probe in scenario.probes
        for level in probe.levels
    )
    measures = sum(len(measures_of(part)) for part in scenario.estimators)
    # the mean of each quantity with the example, without it, and the difference
    measures += 3 * sum(len(stored_names(signal, federation)) for signal in scenario.signals)
    return readings + 3 * measures * (examples + 6 * kinds * rounds)


def _report(scenario: Scenario, kinds: int) -> int:
    """Bytes of the figures and the page, roughly."""
    estimators = [part for whole in scenario.estimators for _, part in nested_components(whole, "")]
    drawn = [item for part in estimators for item in measures_of(part) if item.headline and not item.section]
    has_sheet = any(item.section == "reconstruction" for probe in scenario.probes for item in measures_of(probe))
    figure = FIGURE + kinds * (CURVE + 1000 * len(scenario.observed_rounds))
    return round(PAGE_OF_REPORT + figure * (FIGURES * len(drawn) + len(scenario.probes)) + SHEET * has_sheet)
