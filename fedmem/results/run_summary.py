"""The short results of a run: the record behind the first screen, and `summary.json`, where it is stored.

`fedmem.reporting.summarise.summarise` makes it from the measurements of a run; `Run.summary` reads it. The file is
strict JSON with sorted keys: NaN and infinity become null. Equal results give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from fedmem.contracts.measure import Showing
from fedmem.contracts.measurement import LabelValue, Level
from fedmem.errors import RunError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FILE = "summary.json"
"""Its name in the folder of a run."""

SUMMARY_SCHEMA = 1
"""Version of the file; raised when a field changes its name or its meaning."""

ALPHA = 0.05
"""The largest p of a significant value; the level of the intervals is 1 minus it."""

State = Literal["significant", "below", "not significant", "undefined"]
"""The state of a value: above its null, below it, neither, or without a value, an interval or a null."""

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that is null in JSON where it is NaN."""

Bound = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value)]
"""A float that is null in JSON where it is infinite."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """The row of `measurements.parquet`, in scope `summary`, that a number was read from.

    Attributes:
        metric: Column `metric`.
        level: Column `level`.
        subject: Column `subject`: a kind, or the number of a single example.
        source: Column `source`; empty where one component alone yields the metric.
        labels: The label columns that are not empty.
    """

    metric: str
    level: str
    subject: str
    source: str = ""
    labels: Mapping[str, LabelValue]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number with everything that decides what it shows.

    Attributes:
        value: The value, in the unit of its measure.
        low: Lower end of the 95 % interval; NaN if there is none.
        high: Upper end.
        n: How many examples or models are behind it.
        null: The value without memorisation; NaN if there is none.
        p: The exact p of no memorisation, NaN without. For few examples, the smallest p by Holm's method.
        p_adjusted: p by Holm's method over the measures of its kind and level. NaN where it was not adjusted.
        num_tests: The number of tests in that family.
        effect: Of a retention, the state of its numerator, the effect in the aggregate; without it, nothing is kept.
        saturated: Whether it is too near an end of its measure to be compared.
        examples: For a kind of fewer than eight examples, how many are significant by Holm's method.
        p_of_examples: The p of each of these examples, not adjusted.
        keys: The rows that it was read from.

    Examples:
        >>> Measured(value=0.9, low=0.8, high=0.95, n=60, null=0.0, p=0.01, keys=()).state
        'significant'
        >>> Measured(value=0.9, low=-0.1, high=1.0, n=60, null=0.0, p=0.01, keys=()).state
        'not significant'
        >>> Measured(value=0.9, low=math.nan, high=math.nan, n=4, null=0.0, keys=()).state
        'undefined'
    """

    value: Number
    low: Number
    high: Number
    n: int
    null: Number = math.nan
    p: Number = math.nan
    p_adjusted: Number = math.nan
    num_tests: int = 1
    effect: State | None = None
    saturated: bool = False
    examples: int | None = None
    p_of_examples: tuple[float, ...] = ()
    keys: tuple[Key, ...]

    @property
    def state(self) -> State:
        """Whether interval and p both exclude the null, and on which side the value is.

        An interval that contains the null is not significant, and neither is a deciding p above 0.05.
        """
        if math.isnan(self.value):
            return "undefined"
        if self.examples is not None:
            return "significant" if self.examples else "not significant"
        if math.isnan(self.low + self.high + self.null):
            return "undefined"
        has_effect = self.effect in (None, "significant", "below")
        if self.deciding_p > ALPHA or self.low <= self.null <= self.high or not has_effect:
            return "not significant"
        return "significant" if self.low > self.null else "below"

    @property
    def deciding_p(self) -> float:
        """The p that decides: adjusted where it was adjusted; NaN where there is none."""
        return self.p if math.isnan(self.p_adjusted) else self.p_adjusted

    @property
    def num_tested(self) -> int:
        """How many examples of a small kind were tested one by one: those with rows of their own, beside the kind's."""
        return len({key.subject for key in self.keys[1:]} - {key.subject for key in self.keys[:1]})

    @property
    def p_and_interval_differ(self) -> bool:
        """Whether the deciding p and the interval disagree about the null; the value is then not significant."""
        has_both = self.examples is None and not math.isnan(self.deciding_p + self.low + self.high + self.null)
        return has_both and (self.deciding_p <= ALPHA) == (self.low <= self.null <= self.high)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measure of one kind, at the owning client and in the aggregate.

    Attributes:
        shows: The meaning of a significant value.
        metric: Name of the measure.
        title: The same for people, with the attack and further labels.
        unit: The unit as tables print it; empty for shares.
        digits: Decimals in tables.
        labels: The labels that separate it from other variants of the measure, such as the attack.
        is_headline: Whether the short tables show it; another finding is shown where it decides a verdict.
        local: The value at the owning client; None where it was not measured.
        aggregate: The value in the aggregate; None where it was not measured.
        retention: The share of the local effect that the aggregate keeps; its value is NaN where it is undefined.
        released: The value of the last aggregate on all examples; None where it is that of `aggregate`, or unknown.
    """

    shows: Showing
    metric: str
    title: str
    unit: str
    digits: int
    labels: Mapping[str, LabelValue]
    is_headline: bool = True
    local: Measured | None
    aggregate: Measured | None
    retention: Measured | None
    released: Measured | None = None

    def at(self, level: Level) -> Measured | None:
        """The value at a level: `local` is the owning client, `global` the aggregate."""
        return self.local if level == "local" else self.aggregate


@dataclass(frozen=True, kw_only=True)
class KindSummary:
    """One kind of audit example, with a finding for each measure, in the order of tables."""

    kind: str
    examples: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class ModelsSummary:
    """A value of whole models, such as accuracy: the mean over local models, and over aggregates."""

    metric: str
    title: str
    unit: str
    digits: int
    local: Measured | None
    aggregate: Measured | None


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The leakage to one attack from one view of the updates.

    Attributes:
        source: The probe.
        view: The attacker's view, for people.
        is_sent: Whether the server sees it; a client's first step alone is not sent.
        leaking: Kinds that are reconstructed better than held-out examples and the baseline guess.
        closer: Kinds closer than held-out examples, but neither identified nor better than the baseline guess.
        not_significant: All other kinds with a comparison.
        uncompared: Kinds without a held-out example to compare with.
        keys: The rows that decide it.
    """

    source: str
    view: str
    is_sent: bool
    leaking: tuple[str, ...]
    closer: tuple[str, ...]
    not_significant: tuple[str, ...]
    uncompared: tuple[str, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True)
class GuaranteeSummary:
    """The privacy guarantee of one part of the scenario after all rounds; infinite epsilon is null in JSON.

    `largest_epsilon` is that of a client that participates as often as it can, NaN where it is `epsilon`. `target` is
    `privacy.target_epsilon`. `other_neighbours` and `limits` are remarks in short.
    """

    part: str
    against: str
    unit: str
    adjacency: str
    epsilon: Bound
    delta: float
    largest_epsilon: Number = math.nan
    target: Number = math.nan
    other_neighbours: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A generated sentence about one level, and the rows that it depends on.

    Attributes:
        level: `local` for the owning client, `global` for the aggregate.
        text: The sentence, with the largest value and its interval.
        short: The same without numbers.
        memorised: Kinds with a significant memorisation, exposure or extraction.
        detectable: The other kinds whose membership is detectable.
        not_significant: Kinds with values, none of them significant.
        undefined: Kinds without any value that could be significant.
        keys: The rows that decide it.
    """

    level: Level
    text: str
    short: str
    memorised: tuple[str, ...]
    detectable: tuple[str, ...]
    not_significant: tuple[str, ...]
    undefined: tuple[str, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A value by its place: a measure of a kind at a level, or of its retention."""

    kind: str
    title: str
    level: Literal["local", "global", "retention"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The short results of a run; see `summary.json` in the documentation.

    Attributes:
        schema: Version of this record.
        name: Name of the scenario.
        id: Id of the scenario.
        headline: The run, in one line.
        components: Field of the scenario -> kind of the component.
        seed: Root of all random draws.
        versions: package -> version, of the run.
        commit: Commit of fedmem, where it was run from a checkout.
        measurements_sha256: Sha256 of `measurements.parquet`, from which all numbers are.
        alarms: Bounds that exceed a guarantee; a run with alarms fails.
        warnings: Facts that a reader needs before any number.
        failures: Client rounds that failed.
        client_rounds: Client rounds in all.
        verdicts: One sentence for the owning client, one for the aggregate.
        kinds: The values of each kind of audit example.
        models: Accuracy and other values of whole models.
        leaks: Reconstructions of attacks from updates.
        guarantees: The privacy guarantee of each part.
        audits: Results of audits and direct tests about the guarantees, in sentences.
        not_significant: Values that do not differ significantly from their null.
        below: Values significantly below their null.
        undefined: Values without an interval or a null.
        limits: The limits of these numbers, in sentences.
        power: The standard error of memorisation and its widest interval, in a sentence; empty with a single run.
        report: The report, relative to the folder of the run.
    """

    schema: int = SUMMARY_SCHEMA
    name: str
    id: str
    headline: str
    components: Mapping[str, str]
    seed: int | None
    versions: Mapping[str, str]
    commit: str
    measurements_sha256: str
    alarms: tuple[str, ...]
    warnings: tuple[str, ...]
    failures: int
    client_rounds: int
    verdicts: tuple[Verdict, ...]
    kinds: tuple[KindSummary, ...]
    models: tuple[ModelsSummary, ...]
    leaks: tuple[Leak, ...]
    guarantees: tuple[GuaranteeSummary, ...]
    audits: tuple[str, ...]
    not_significant: tuple[Place, ...]
    below: tuple[Place, ...]
    undefined: tuple[Place, ...]
    limits: tuple[str, ...]
    power: str = ""
    report: str = "report.html"

    def verdict(self, level: Level) -> Verdict:
        """The sentence about the owning client (`local`) or the aggregate (`global`)."""
        return next(verdict for verdict in self.verdicts if verdict.level == level)


@cache
def _adapter() -> TypeAdapter[RunSummary]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunSummary)


def summary_bytes(summary: RunSummary) -> bytes:
    """The record as the bytes of `summary.json`; each value also has its `state`."""
    return record_bytes(summary)


def record_bytes(record: Any) -> bytes:
    """A record of dataclasses as strict JSON with sorted keys; NaN and infinity are null."""
    return f"{json.dumps(_to_json(record), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)}\n".encode()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `summary.json`."""
    return _adapter().json_schema(mode="serialization")


def sha256_of(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_summary(folder: Path) -> RunSummary:
    """The summary in this folder.

    Errors: `RunError` where it is missing or damaged, of another schema, or made from other measurements.
    """
    again = f"write it again with: fedmem report {folder}"
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if isinstance(content, Mapping) and content.get("schema", SUMMARY_SCHEMA) != SUMMARY_SCHEMA:
            other = f"schema {content['schema']}, this version reads {SUMMARY_SCHEMA}"
            raise RunError(f"{folder / FILE} is written in {other}; {again}")
        summary = _adapter().validate_python(content)
    except FileNotFoundError:
        raise RunError(f"{folder / FILE} is missing; {again}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder / FILE} is damaged ({reason:.200}); {again}") from error
    if summary.measurements_sha256 != sha256_of(folder / "measurements.parquet"):
        raise RunError(f"{folder / FILE} was made from other measurements; {again}")
    return summary


def _to_json(value: Any) -> Any:
    """The same in types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_dataclass(value):
        content = {item.name: _to_json(getattr(value, item.name)) for item in fields(value)}
        return content | {"state": value.state} if isinstance(value, Measured) else content
    return value
