"""The sentence about one level: which kinds are memorised there, and whose membership is detectable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmem.contracts.events import count
from fedmem.contracts.measurement import Level
from fedmem.reporting.cells import Value
from fedmem.results.run_summary import Finding, Key, KindSummary, Measured, Verdict

MEMORISED = ("memorised", "exposed", "extracted")
"""The evidence of a finding for which its kind is called memorised."""

DETECTABLE = ("detectable",)
"""The evidence of a finding for which membership of its kind is called detectable."""

NAMED = 3
"""Kinds that a sentence names in one list; further ones are counted."""

_NOT_ABSENT = "Not significant does not mean absent"


def verdict_of(level: Level, kinds: Sequence[KindSummary]) -> Verdict:
    """The sentence about the owning client (`local`) or the aggregate (`global`), with the rows that decide it.

    A kind is memorised where one of its values of memorisation, exposure or extraction is significant. Membership of
    the other kinds may be detectable. A kind is undefined where none of its values could be significant. A value is
    significant where its interval and its adjusted p both exclude its null.
    """
    measured = [kind for kind in kinds if any(finding.at(level) for finding in kind.findings)]
    memorised = sorted(
        (kind for kind in measured if _shows(kind, level, MEMORISED)), key=lambda kind: _rank(kind, level)
    )
    others = [kind for kind in measured if kind not in memorised]
    detectable = [kind for kind in others if _shows(kind, level, DETECTABLE)]
    rest = [kind for kind in others if kind not in detectable]
    undefined = [kind for kind in rest if _is_undefined(kind, level)]
    not_significant = [kind for kind in rest if kind not in undefined]
    kinds_by_state = _Sorted(
        level=level,
        memorised=memorised,
        detectable=detectable,
        not_significant=not_significant,
        undefined=undefined,
    )
    return Verdict(
        level=level,
        text=kinds_by_state.text(numbers=True),
        short=kinds_by_state.text(numbers=False),
        memorised=_names(memorised),
        detectable=_names(detectable),
        not_significant=_names(not_significant),
        undefined=_names(undefined),
        keys=(*_keys(measured, level), *(_keys(memorised, "local", MEMORISED) if level == "global" else ())),
    )


@dataclass(frozen=True, kw_only=True)
class _Sorted:
    """The kinds with values at a level, sorted by what is shown of them."""

    level: Level
    memorised: Sequence[KindSummary]
    detectable: Sequence[KindSummary]
    not_significant: Sequence[KindSummary]
    undefined: Sequence[KindSummary]

    @property
    def place(self) -> str:
        return "At the owning client" if self.level == "local" else "In the aggregate"

    def text(self, *, numbers: bool) -> str:
        """The sentence; with numbers also the reminder of what it means that nothing is significant."""
        not_significant, undefined = (list_text(_names(kinds)) for kinds in (self.not_significant, self.undefined))
        further = [f"{not_significant}: not significant"] * bool(not_significant)
        further += [f"{undefined}: undefined"] * bool(undefined)
        remarks = [*further[bool(not_significant) :], *self._unclear(), *self._not_measured()]
        if self.memorised:
            detectable = self._list(self.detectable, DETECTABLE, numbers=numbers)
            membership = [f"membership of {detectable} is detectable"] * bool(detectable)
            sentence = [self._memorised_text(numbers=numbers), *membership, *further[: bool(not_significant)], *remarks]
            return "; ".join(sentence) + "."
        if self.detectable:
            detectable = self._list(self.detectable, DETECTABLE, numbers=numbers)
            memorisation = f"memorisation is {self._state_of(self.detectable, MEMORISED)}"
            first = f"{self.place}, {memorisation}, but membership of {detectable} is detectable"
            return "; ".join([first, *further, *self._unclear()]) + "."
        if self.not_significant:
            nothing = f"{self.place}, {self._nothing_significant()} for {not_significant}"
            return "; ".join([nothing, *remarks]) + (f". {_NOT_ABSENT}." if numbers else ".")
        if self.undefined:
            return f"{self.place}, nothing is shown, since the values of {undefined} are undefined."
        return f"{self.place}, neither memorisation nor membership was measured."

    def _nothing_significant(self) -> str:
        """The kinds that have a value and are not significant."""
        subjects = [
            subject
            for subject, shown in (("memorisation", MEMORISED), ("membership", DETECTABLE))
            if self._state_of(self.not_significant, shown) == "not significant"
        ]
        return (
            f"neither {' nor '.join(subjects)} is significant"
            if len(subjects) > 1
            else f"{subjects[0]} is not significant"
        )

    def _unclear(self) -> list[str]:
        """The kinds that are not significant because interval and p disagree."""
        unclear = [
            kind.kind
            for kind in self.not_significant
            if any((value := finding.at(self.level)) and value.p_and_interval_differ for finding in kind.findings)
        ]
        return [f"unclear for {list_text(unclear)}: interval and p disagree"] * bool(unclear)

    def _not_measured(self) -> list[str]:
        """The measures that no kind has a value of, where something is not significant or undefined."""
        kinds = (*self.memorised, *self.detectable, *self.not_significant, *self.undefined)
        if not (self.not_significant or self.undefined):
            return []
        return [
            f"{subject} was not measured"
            for subject, shown in (("memorisation", MEMORISED), ("membership", DETECTABLE))
            if self._state_of(kinds, shown) == "not measured"
        ]

    def _memorised_text(self, *, numbers: bool) -> str:
        kinds = self._list(self.memorised, MEMORISED, numbers=numbers)
        if self.level == "local":
            return f"At the owning client, models memorise {kinds}"
        retained = all(_shows(kind, "local", MEMORISED) for kind in self.memorised)
        return f"The aggregate {'retains memorisation of' if retained else 'memorises'} {kinds}"

    def _state_of(self, kinds: Sequence[KindSummary], shown: Sequence[str]) -> str:
        """Whether these kinds have values of memorisation, or of membership, and whether all are undefined."""
        states = {
            value.state
            for kind in kinds
            for finding in kind.findings
            if finding.shows in shown and (value := finding.at(self.level))
        }
        return "not measured" if not states else "undefined" if states == {"undefined"} else "not significant"

    def _list(self, kinds: Sequence[KindSummary], shown: Sequence[str], *, numbers: bool) -> str:
        names = list(_names(kinds))
        if numbers:
            names[:NAMED] = [f"{kind.kind} ({_number_text(kind, self.level, shown)})" for kind in kinds[:NAMED]]
        return list_text(names)


def list_text(names: Sequence[str]) -> str:
    """Names as a list; beyond `NAMED` they are counted.

    >>> list_text(["a", "b", "c"]), list_text(["a", "b", "c", "d", "e"])
    ('a, b and c', 'a, b, c and 2 more')
    """
    shown = list(names[:NAMED])
    if more := len(names) - len(shown):
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def below_text(names: Sequence[str]) -> str:
    """The meaning of values that are significantly below their null, with their names.

    >>> below_text(["LiRA AUC of typical (global)"]).partition(". ")[0]
    'Significantly below its null: LiRA AUC of typical (global)'
    """
    return (
        f"Significantly below {'its' if len(names) == 1 else 'their'} null: {list_text(names)}. Either it is chance, "
        "or scores fall where an example is in. Such a value counts as neither memorised nor detectable, since an "
        "attacker who turns the scores around must know so beforehand. To find out, run more seeds."
    )


def value_text(finding: Finding, value: Measured) -> str:
    """A value with its measure, unit, interval, n and the p that decides.

    For a kind with few examples, it is how many of them are significant.
    """
    p = p_text_of(value)
    if value.examples is not None:
        return f"{finding.title}: {value.examples} of {count(value.num_tested, 'example')}{p}"
    number = Value(value=value.value, low=value.low, high=value.high, n=value.n, saturated=value.saturated)
    return f"{finding.title} {number.text(2)}{f' {finding.unit}' if finding.unit else ''}, n = {value.n}{p}"


def p_text_of(value: Measured) -> str:
    """The p that decides, and whether it was adjusted; empty where there is none.

    >>> p_text_of(Measured(value=0.9, low=0.8, high=1.0, n=9, p=0.002, p_adjusted=0.008, num_tests=4, keys=()))
    ', adjusted p 0.008'
    """
    if math.isnan(value.deciding_p):
        return ""
    return f", {'adjusted ' * (value.num_tests > 1)}p {value.deciding_p:.2g}"


def _number_text(kind: KindSummary, level: Level, shown: Sequence[str]) -> str:
    """The first significant value of a kind, self-influence first, then one significant at both levels."""
    values = [(finding, value) for finding, value in _significant(kind, level) if finding.shows in shown]
    other: Level = "global" if level == "local" else "local"
    at_both = [finding for finding, _ in _significant(kind, other)]
    return value_text(*min(values, key=lambda pair: (shown.index(pair[0].shows), pair[0] not in at_both)))


def _rank(kind: KindSummary, level: Level) -> tuple[int, float]:
    """First the kinds with the largest self-influence, then those of which something else is significant."""
    ranks = [
        (MEMORISED.index(finding.shows), -value.value if math.isfinite(value.value) else 0.0)
        for finding, value in _significant(kind, level)
        if finding.shows in MEMORISED
    ]
    return min(ranks)


def _significant(kind: KindSummary, level: Level) -> Iterator[tuple[Finding, Measured]]:
    for finding in kind.findings:
        value = finding.at(level)
        if value is not None and value.state == "significant":
            yield finding, value


def _shows(kind: KindSummary, level: Level, shown: Sequence[str]) -> bool:
    return any(finding.shows in shown for finding, _ in _significant(kind, level))


def _is_undefined(kind: KindSummary, level: Level) -> bool:
    values = [value for finding in kind.findings if (value := finding.at(level))]
    return all(value.state == "undefined" for value in values)


def _names(kinds: Sequence[KindSummary]) -> tuple[str, ...]:
    return tuple(kind.kind for kind in kinds)


def _keys(kinds: Sequence[KindSummary], level: Level, shown: Sequence[str] = ()) -> Iterator[Key]:
    """The rows of all values at a level, or of those that show something of `shown`."""
    for kind in kinds:
        for finding in kind.findings:
            if (not shown or finding.shows in shown) and (value := finding.at(level)) is not None:
                yield from value.keys
