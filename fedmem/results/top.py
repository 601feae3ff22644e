"""The most memorised audit examples of a finished run, with exact p and intervals that allow for the selection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import PEOPLE, AuditSet
from fedmem.contracts.events import count
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Level, Reading
from fedmem.errors import ComponentError, RunError
from fedmem.estimation.single_examples import (
    RATE,
    adjust,
    competition_ranks,
    level_of_selected,
    smallest_p,
)
from fedmem.estimation.two_way import quantile
from fedmem.estimation.views import p_of_single_ranks, summary_values
from fedmem.results.examples import text_of
from fedmem.results.read import Run, read_bank
from fedmem.results.single_measures import (
    LEVELS as LEVELS,
)
from fedmem.results.single_measures import (
    Evidence,
    ScoredVariant,
    choose_level,
    choose_variant,
    declaration_of,
    evidence_compared,
    floor_text,
)
from fedmem.results.single_measures import (
    single_measures as single_measures,
)
from fedmem.wording import choices

if TYPE_CHECKING:
    import pandas as pd

NOT_MEASURED = "not measured at this level"
NO_INTERVAL = "no interval: only shares of right answers have one for a single example; p is exact"
NO_SPREAD = "no interval: its estimator gives none for a single example, or all runs say the same"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The options of a ranking; see `Run.top`."""

    n: int = 10
    level: Level | None = None
    kind: str | None = None
    client: str | int | None = None
    measure: str | None = None
    show_sensitive: bool = False
    lowest: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The most memorised examples.

    Attributes:
        frame: A row for each example, with `rank` (equal scores share one), `tied`, `subject`, `kind`, `owner`,
            `owner_name`, `target`, `target_name`, `true_target`, `true_target_name`. At both levels it has the score,
            `<level>_low`, `<level>_high`, `<level>_n` (runs) and `<level>_note` (why there is no interval). `p` is that
            of no memorisation of this example at `level`, exact and one-sided. `p_adjusted` is adjusted over all
            candidates, and `significant` says whether it is at most 0.05. `candidates` and `level_of_interval` are as
            below; `text` and `inputs` as in `Run.audit`.
        measure: The declaration of the measure.
        name: Its name, as `--measure` takes it.
        level: The level whose scores decide the order.
        is_lowest: Whether the lowest scores are first, as asked for or because training lowers this difference.
        candidates: How many examples were looked at.
        unscored: How many more of those asked for have no score at `level`.
        interval_level: The level of the intervals: 1 − 0.05 × shown / candidates.
        significant: How many of the candidates are significant; None without an exact test.
        other_tests: One entry for each further measure with an exact test of other evidence. It has the measure's name,
            how many of the same examples are significant, and how many have a score. Each measure is adjusted alone.
        further_ties: Candidates that are not shown and have the score of the last one shown.
        runs: R, or with twins the number of runs with different coins.
        smallest_p: The floor of p, 1 / C(R, in runs); NaN with one run, where p is that of a rank.
        together: Whether some of the candidates are in or out together. p are then adjusted for any dependence.
        largest_error: The largest standard error of a shown score at `level`, ½ √(1/ins + 1/outs); NaN where unknown.
    """

    frame: pd.DataFrame
    measure: Measure
    name: str
    level: Level
    is_lowest: bool
    candidates: int
    unscored: int
    interval_level: float
    significant: int | None
    other_tests: tuple[tuple[str, int, int], ...]
    further_ties: int
    runs: int
    smallest_p: float
    together: bool
    largest_error: float


def rank_examples(run: Run, choice: Choice) -> Ranking:
    """The examples at one end of the scores. Errors: `ComponentError` with choices, `RunError` without any score."""
    if choice.n < 1:
        raise ComponentError("n", f"is {choice.n}, should be 1 or more")
    bank = read_bank(run.path)
    is_candidate = _filter(run, bank.audit, choice)
    name, variant = choose_variant(run, choice.measure, bank.audit, is_candidate)
    level = choose_level(variant, choice.level)
    scored = {
        subject: reading.value
        for subject, reading in variant.scores[level].items()
        if is_candidate[subject] and not math.isnan(reading.value)
    }
    if not scored:
        raise RunError(
            f"{run.path}: none of these examples has a score at level {level}; choose others with --kind, "
            "--client or --level"
        )
    subjects = np.array(list(scored), dtype=np.int64)
    measure = declaration_of(run, variant)
    values = summary_values(bank)
    evidence = Evidence(values=values, audit=bank.audit, compares=evidence_compared(measure, variant.labels))
    p = evidence.p(level)[subjects]
    if measure.ranked == "value":
        p = np.where(np.isnan(p), p_of_single_ranks(bank, level)[subjects], p)
    is_lowest = choice.lowest or measure.is_lowered_by_training
    # of equal scores the smaller p is nearer the upper end
    sign = 1.0 if is_lowest else -1.0
    scores = sign * np.array([scored[s] for s in subjects.tolist()])
    order = np.lexsort((subjects, -sign * np.nan_to_num(p, nan=1.0), scores))
    ranks = competition_ranks([scored[s] for s in subjects[order].tolist()])
    shown = order[: choice.n]
    dependent = bank.audit.shares_coins(subjects)
    interval_level = level_of_selected(len(shown), len(subjects), dependent=dependent)
    adjusted = adjust(p, dependent=dependent)
    columns: dict[str, object] = {
        "rank": ranks[: len(shown)],
        "tied": [ranks.count(rank) > 1 for rank in ranks[: len(shown)]],
        "subject": subjects[shown],
    }
    for each in ("local", "global"):
        columns |= _score_columns(variant, evidence, each, subjects[shown], interval_level, measure)
    columns |= {"p": p[shown], "p_adjusted": adjusted[shown], "significant": adjusted[shown] <= RATE}
    columns |= {"candidates": len(subjects), "level_of_interval": interval_level}
    ranking = Ranking(
        frame=_with_examples(run, columns, show_sensitive=choice.show_sensitive),
        measure=measure,
        name=name,
        level=level,
        is_lowest=is_lowest,
        candidates=len(subjects),
        unscored=int(is_candidate.sum()) - len(subjects),
        interval_level=interval_level,
        significant=int((adjusted <= RATE).sum()) if not np.isnan(p).all() else None,
        other_tests=tuple(_other_tests(run, evidence, level, is_candidate)),
        further_ties=sum(rank == ranks[len(shown) - 1] for rank in ranks[len(shown) :]),
        runs=bank.audit.num_coin_rows,
        smallest_p=smallest_p(evidence.is_in),
        together=dependent,
        largest_error=evidence.largest_error(level, subjects[shown]) if measure.range == (-1.0, 1.0) else math.nan,
    )
    ranking.frame.attrs["note"] = " ".join(notes(ranking))
    return ranking


def _other_tests(run: Run, shown: Evidence, level: Level, is_candidate: BoolArray) -> Iterator[tuple[str, int, int]]:
    """By each measure of other evidence than what is shown: its name, and how many examples are significant of all."""
    tested = {"", shown.compares}
    for name, variant in single_measures(run).items():
        compares = evidence_compared(declaration_of(run, variant), variant.labels)
        scores = variant.scores.get(level, {})
        subjects = [subject for subject in scores if is_candidate[subject] and not math.isnan(scores[subject].value)]
        if compares in tested or not subjects:
            continue
        p = replace(shown, compares=compares).p(level)[subjects]
        if not np.isnan(p).all():
            tested.add(compares)
            yield (
                name,
                int((adjust(p, dependent=shown.audit.shares_coins(np.array(subjects))) <= RATE).sum()),
                len(subjects),
            )


def notes(ranking: Ranking) -> Iterator[str]:
    """Sentences that a reader must know before trusting the order."""
    if ranking.measure.section == "proxies":
        yield f"This is a proxy, not memorisation.{ranking.measure.sign_text}"
    total = ranking.candidates
    is_of_ranks = math.isnan(ranking.smallest_p)
    of_all = f"{total} example{'s' * (total != 1)}"
    test = "exact p, that of its rank among references" if is_of_ranks else "exact one-sided p from random inclusion"
    if ranking.significant is None:
        yield "There is no exact test of these examples: the order is that of the scores alone."
        if ranking.measure.ranked == "value":
            yield f"{PEOPLE[0].upper()}{PEOPLE[1:]}."
    elif ranking.significant:
        verb = "is" if ranking.significant == 1 else "are"
        yield (
            f"{ranking.significant} of {count(total, 'example')} {verb} significantly above the value without "
            f"memorisation, by {ranking.name} (marked *): {test}, adjusted over {of_all} so that at most 5 % of the "
            "marks are expected to be wrong."
        )
    elif any(marked for _, marked, _ in ranking.other_tests):
        name, marked, tested = max(ranking.other_tests, key=lambda other: other[1])
        yield (
            f"Examples are memorised: {name} marks {marked} of {tested}. By {ranking.name} 0 of {total} are "
            f"significant, so this order may be noise; see `--measure {name}` ({test}, adjusted over the examples of "
            "each measure)."
        )
    else:
        yield (
            f"None of {count(total, 'example')} is significantly above the value without memorisation, by "
            f"{ranking.name} ({test}, adjusted over {of_all}): the order may be noise."
        )
    if ranking.other_tests:
        counts = "; ".join(f"{name} marks {marked} of {tested}" for name, marked, tested in ranking.other_tests)
        yield (
            f"Of the same examples, {counts}. Each measure is adjusted over its examples alone, and not for the number "
            "of measures; `--measure` shows them."
        )
    if ranking.significant is not None and not is_of_ranks:
        yield (
            f"With {ranking.runs} runs p is at least {ranking.smallest_p:.2g}, the probability that random inclusion "
            f"alone puts an example into exactly its highest runs.{floor_text(ranking.smallest_p, total)}"
        )
    if ranking.together:
        yield (
            "Some examples are in or out together, so that each value is the effect of all of them. Their p depend on "
            "each other, and are adjusted for any dependence (Benjamini and Yekutieli)."
        )
    if not math.isnan(ranking.largest_error):
        yield (
            f"With {ranking.runs} runs the score of one example has a standard error of up to "
            f"{ranking.largest_error:.2g}. Smaller gaps between examples do not show which is memorised more."
        )
    if len(ranking.frame) < total:
        end, bias = ("lowest", "low") if ranking.is_lowest else ("highest", "high")
        yield (
            f"The {end} of many noisy scores are too {bias} on average. Intervals are widened for that: of those "
            f"shown, at most 5 % are expected to miss ({100 * ranking.interval_level:.4g} % each)."
        )
    frame, null = ranking.frame, ranking.measure.null
    if ranking.significant is not None and ((frame[f"{ranking.level}_low"] > null) & ~frame["significant"]).any():
        yield (
            "An interval may lie above the value without memorisation although there is no mark. Then use the mark: it "
            "allows for all examples that were looked at, and the interval for those that are shown."
        )
    if "(hidden)" in "".join(ranking.frame["text"]):
        yield "Cells of sensitive columns are hidden; `fedmem top --show-sensitive` shows them."
    if note := unscored_note(ranking):
        yield note
    if ranking.further_ties:
        more = "1 more example has" if ranking.further_ties == 1 else f"{ranking.further_ties} more examples have"
        yield f"{more} the score of the last one; of ties the smaller p is first."
    yield from _missing(ranking)


def unscored_note(ranking: Ranking) -> str:
    """How many examples are left out, because they have no score; empty where none is."""
    if not ranking.unscored:
        return ""
    return (
        f"{ranking.unscored} more have no score here. Either {ranking.name} does not exist for their kind, or their "
        "owning clients took part in no observed round. In the second case, observe more rounds (observe.every: 1)."
    )


def _missing(ranking: Ranking) -> list[str]:
    """Why values have no interval, each reason once."""
    reasons = [ranking.frame[f"{level}_note"] for level in LEVELS]
    return [reason for reason in dict.fromkeys(one for column in reasons for one in column) if reason]


def _score_columns(
    variant: ScoredVariant,
    evidence: Evidence,
    level: Level,
    subjects: IntArray,
    confidence: float,
    measure: Measure,
) -> dict[str, object]:
    """Score, interval, number of runs, and why there is no interval."""
    readings = [variant.scores.get(level, {}).get(subject) for subject in subjects.tolist()]
    low, high = (bound[subjects] for bound in evidence.interval(level, confidence))
    value = np.array([math.nan if reading is None else reading.value for reading in readings])
    if evidence.compares != "correct":
        widened = _widen(readings, value, confidence, is_difference=not math.isnan(measure.null))
        low, high = (np.clip(bound, *measure.range) for bound in widened)
    has_interval = ~np.isnan(low + high + value)
    notes = [
        NOT_MEASURED if math.isnan(one) else "" if known else NO_INTERVAL if evidence.compares else NO_SPREAD
        for one, known in zip(value.tolist(), has_interval.tolist(), strict=True)
    ]
    return {
        level: value,
        f"{level}_low": np.where(has_interval, low, math.nan),
        f"{level}_high": np.where(has_interval, high, math.nan),
        f"{level}_n": [0 if reading is None else reading.n for reading in readings],
        f"{level}_note": notes,
    }


def _widen(
    readings: Sequence[Reading | None], value: FloatArray, confidence: float, *, is_difference: bool
) -> tuple[FloatArray, FloatArray]:
    """The 95 % intervals that an estimator gave for single examples, at another level, by Student's t over n runs.

    For a difference of in and out runs, the degrees of freedom are those of one side alone. That is the fewest that
    Welch's interval has, and with fewer an interval is widened by more.
    """
    low, high = np.full(len(value), math.nan), np.full(len(value), math.nan)
    for position, reading in enumerate(readings):
        if reading is not None and not math.isnan(reading.low + reading.high):
            freedom = max((reading.n // 2 if is_difference else reading.n) - 1, 1)
            factor = quantile(freedom, confidence) / quantile(freedom)
            low[position] = value[position] - factor * (value[position] - reading.low)
            high[position] = value[position] + factor * (reading.high - value[position])
    return low, high


def _with_examples(run: Run, columns: Mapping[str, object], *, show_sensitive: bool) -> pd.DataFrame:
    """The columns with those of the examples themselves."""
    import pandas as pd

    frame = pd.DataFrame(dict(columns))
    facts = ["kind", "owner", "owner_name", "target", "target_name", "true_target", "true_target_name"]
    audit = run.audit.set_index("subject").loc[frame["subject"]].reset_index()
    for place, name in enumerate(facts):
        frame.insert(3 + place, name, audit[name])
    texts: list[str] = audit["text"].tolist()
    if show_sensitive:
        examples = read_bank(run.path).audit.examples
        texts = [text_of(subject, examples, run.names, show_sensitive=True) for subject in frame["subject"].tolist()]
    return frame.assign(text=texts, inputs=audit["inputs"])


def _filter(run: Run, audit: AuditSet, choice: Choice) -> BoolArray:
    """(m,) the examples of the kind and of the client that are asked for."""
    chosen = np.ones(len(audit), dtype=bool)
    if choice.kind is not None:
        if choice.kind not in audit.kinds:
            raise ComponentError(
                "kind", f"no audit example is of kind {choice.kind!r}{choices(choice.kind, audit.kinds)}"
            )
        chosen &= audit.kind == choice.kind
    if choice.client is not None:
        chosen &= audit.holds([_client_number(run, audit, choice.client)])[0]
    return chosen


def _client_number(run: Run, audit: AuditSet, client: str | int) -> int:
    """The number of a client. A name comes before a number; `#3` is always client 3."""
    names, text = run.client_names, str(client)
    number = -1
    if isinstance(client, str) and client in names:
        number = names.index(client)
    elif text.removeprefix("#").isdecimal():
        number = int(text.removeprefix("#"))
    owners = sorted(set(audit.owners.tolist()) - {-1})
    if number not in owners:
        shown = [names[one] if names else str(one) for one in owners]
        more = f", and {len(shown) - 20} more" if len(shown) > 20 else ""
        wrong = "is no client that holds audit examples"
        raise ComponentError("client", f"{text!r} {wrong}{choices(text, shown[:20])}{more}; #NUMBER is always a number")
    return number
