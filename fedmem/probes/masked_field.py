"""Masked personal data: which value of a field a model fills in, among all that could stand there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.modalities.loss import UNASKED
from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.windows import PADDING, inputs_and_targets, join_windows, prefix_and_start
from fedmem.probes._leak_measures import FILLED_IN
from fedmem.probes._leakage_summary import at_last_participation, summed_up
from fedmem.probes._pieces import pieces
from fedmem.probes._subjects import labels_by_subject, require_texts, subjects_of_kinds


@dataclass(frozen=True, kw_only=True)
class MaskedField:
    """Filling in of a masked field of a record, such as a city or a number, by the likelihood of the whole record.

    An adversary has a record of which one field is masked, as in scrubbed text, and knows which values it may have. It
    puts in each candidate and takes the likelihood of the field and of all that follows, given what stands before it.
    Lukas et al. (2023) call it inference and reconstruction of PII. Candidates are all values of the template, or the
    true one and `candidates` others drawn at random where there are more. Values that other audit examples have after
    the same beginning are no candidates, since a model may have been trained on them.

    - `masked_first`: 1 if the true value is more likely than every other, else 0;
    - `masked_rank`: 1 + the values that are more likely + half of those that are as likely;
    - `masked_exposure`: log2 of the number of values minus log2 of the rank, in bits, from 0;
    - `masked_gain`: the exposure minus that by a guess that knows only how frequent tokens are in the reference data;
    - `masked_beats_frequencies`: 1 if the rank is smaller than that of this guess, else 0.

    The guess adds one to the count of each token; without reference data (`population: 0`) all tokens are as frequent.

    A likely value is ranked high by any model. So each record is also asked for in runs whose coin left it out. The
    label `place` says whose model it is: `owner` holds the record, `others` do not. `coin` = `out` marks records that
    the run did not train on. `summarise` gives means by kind and place, for each round and in the summary, and
    `.difference`, in − out. Intervals and rounds are those of the probe `extraction`.

    Fields

    - `candidates`: the most values that the true one is compared with.
    - `kinds`: injections whose examples are asked for; if left out, all that have a template.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look.

    Guarantees: the candidates of a record are the same for all models; reads `kept`; nothing is changed. The readings
    of a model do not depend on other models. A likelihood of NaN gives NaN, of another candidate it does not count.

    Errors: `ComponentError` for data that are no text, for kinds that no injection has, and without any record of a
    template.

    >>> MaskedField().candidates
    1000

    Reference: Lukas et al. (2023), Analyzing leakage of personally identifiable information in language models.
    """

    measures: ClassVar[tuple[Measure, ...]] = FILLED_IN
    compares_held_out: ClassVar[bool] = True

    candidates: Annotated[int, Gt(0)] = 1000
    names_injections: ClassVar[tuple[str, ...]] = ("kinds",)

    kinds: tuple[str, ...] = ()
    runs: Annotated[int, Gt(0)] = 32
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Readings of each record under each model."""
        federation = context.federation
        records = self._records(context)
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.run < self.runs:
                about = labels_by_subject(federation, transition, [record.subject for record in records])
                for record in records:
                    if record.subject not in about:
                        continue
                    labels = Labels.of(about[record.subject])
                    for metric, value in record.values(_log_likelihoods(record, transition, context)).items():
                        reading = Reading(metric=metric, value=value, subject=str(record.subject), labels=labels)
                        readings.append((transition, reading))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and what records that are in have over those out, of each round and in the summary."""
        return summed_up(measurements, self.measures, at_last_participation(measurements))

    def _records(self, context: Context) -> list[_MaskedRecord]:
        """The records with a template, each with its candidates."""
        federation = context.federation
        require_texts(federation, "masked_field")
        spaces = {references.family: references.space or references.records for references in federation.references}
        has_template = np.array([spaces.get(kind) is not None for kind in federation.audit.kind.tolist()], dtype=bool)
        log_frequencies = _log_frequencies(federation)
        examples = federation.audit.examples
        texts = [prefix_and_start(*row) for row in zip(examples.inputs, examples.targets, strict=True)]
        records = []
        for subject in subjects_of_kinds(federation, self.kinds, has_template):
            space = spaces.get(str(federation.audit.kind[subject]))
            record = None if space is None else self._record(context, space, subject, texts, log_frequencies)
            records += [] if record is None else [record]
        if not records:
            raise ComponentError(
                "probes.kinds",
                "masked_field puts values into the fields of a template, but no such audit example has one. Add an "
                "injection such as {kind: personal}, or leave this probe out",
            )
        return records

    def _record(
        self,
        context: Context,
        whole: Candidates,
        subject: int,
        texts: Sequence[tuple[Tokens, int]],
        log_frequencies: FloatArray,
    ) -> _MaskedRecord | None:
        """One record, None where its field has no candidates beside the true value."""
        text, first = texts[subject]
        space = whole.with_prefix(text[:first])
        if space is None or not space.has(text):
            return None
        true = space.index(text)
        planted = {space.index(other) for other, _ in texts if other[:first] == text[:first] and space.has(other)}
        others = self._others(context, space, planted | {true}, subject)
        if not others:
            return None
        # the text ends with the last token that is asked for, and members with what stands after it in the template
        members = (space.member_tokens(number) for number in others)
        values = [text[first:], *(member[first : len(member) - len(space.ending)] for member in members)]
        after = space.ending or _rest_of_record(context.federation, subject, len(text))
        return _MaskedRecord(
            subject=subject,
            tokens=_pad([text[:first] + value + after for value in values]),
            first=first,
            log_frequency=np.array([log_frequencies[list(value)].sum() for value in values]),
        )

    def _others(self, context: Context, space: Candidates, excluded: set[int], subject: int) -> list[int]:
        """The members that the true value is compared with, none of them excluded."""
        if space.size <= self.candidates + len(excluded):
            return [number for number in range(space.size) if number not in excluded]
        rng = context.stream(f"masked_field:{subject}")
        drawn: dict[int, None] = {}
        while len(drawn) < self.candidates:
            drawn.update(
                dict.fromkeys(number for number in space.sample(self.candidates, rng) if number not in excluded)
            )
        return list(drawn)[: self.candidates]


@dataclass(frozen=True, kw_only=True)
class _MaskedRecord:
    """One record with n candidates in its field, the true value first.

    Attributes:
        subject: The audit example.
        tokens: (n, W) the record with each candidate, -1 after its end.
        first: The place of the first token of the field.
        log_frequency: (n,) the log likelihood of each candidate by the frequencies of tokens alone.
    """

    subject: int
    tokens: IntArray
    first: int
    log_frequency: FloatArray

    def values(self, log_likelihood: FloatArray) -> dict[str, float]:
        """The value of each measure, from the log likelihoods (n,) of the records."""
        rank, by_frequency = _rank_of_first(log_likelihood), _rank_of_first(self.log_frequency)
        exposure = float(np.log2(len(log_likelihood) / rank))
        return {
            "masked_first": _flag(rank < 1.5, rank),
            "masked_beats_frequencies": _flag(rank < by_frequency, rank),
            "masked_rank": rank,
            "masked_exposure": exposure,
            "masked_gain": exposure - float(np.log2(len(log_likelihood) / by_frequency)),
        }


def _rest_of_record(federation: Federation, subject: int, start: int) -> Tokens:
    """The tokens of an audit example from a place on.

    Padding is input 0, which may be a token as well, and inputs lack the last token of a row that is full. A copy that
    stands alone in a row asks for every token, so that it tells.
    """
    inputs = federation.audit.examples.inputs[subject].astype(np.int64)
    end = int(np.flatnonzero(inputs).max(initial=-1)) + 1
    for row in federation.trained_rows[federation.audit.subject == subject].tolist():
        tokens = join_windows(federation.store.inputs[row : row + 1], federation.store.targets[row : row + 1])[0]
        if np.array_equal(np.maximum(tokens[:-1], 0), inputs):
            return tuple(tokens[tokens != PADDING][start:].tolist())
    return tuple(inputs[start:end].tolist())


def _flag(is_true: bool, rank: float) -> float:
    """1 or 0; NaN without a rank."""
    return float("nan") if np.isnan(rank) else float(is_true)


def _rank_of_first(values: FloatArray) -> float:
    """1 + the values larger than the first + half of those that are equal to it; NaN if it is NaN."""
    own, others = values[0], values[1:]
    if np.isnan(own):
        return float("nan")
    return float(1 + np.count_nonzero(others > own) + 0.5 * np.count_nonzero(others == own))


def _log_likelihoods(record: _MaskedRecord, transition: Transition, context: Context) -> FloatArray:
    """(n,) the log likelihood of the field and of all after it, with each candidate."""
    inputs, targets = inputs_and_targets(record.tokens)
    targets[:, : record.first - 1] = UNASKED
    parts = []
    for _, rows in pieces(1, len(inputs), inputs.shape[1] * context.federation.num_classes):
        logits = context.logits([transition.kept], np.ascontiguousarray(inputs[rows]))[0]
        parts.append(_sums_of_log_p(logits, targets[rows]))
    return np.concatenate(parts)


def _sums_of_log_p(logits: FloatArray, targets: IntArray) -> FloatArray:
    """(n,) the sums of log p over what is asked, from logits (n, L, C)."""
    from scipy.special import log_softmax

    label = np.where(targets == UNASKED, 0, targets)
    log_p = np.take_along_axis(log_softmax(logits, axis=-1), label[..., None], axis=-1)[..., 0]
    return np.asarray(np.where(targets == UNASKED, 0.0, log_p).sum(axis=1))


def _log_frequencies(federation: Federation) -> FloatArray:
    """(V,) the log of the frequency of each token in the reference data, each counted once more than it occurs."""
    rows = federation.population
    tokens = np.concatenate([rows.inputs[:, :1].ravel(), rows.targets[rows.targets != UNASKED]]).astype(np.int64)
    counts = np.bincount(tokens, minlength=federation.num_classes) + 1
    return np.asarray(np.log(counts / counts.sum()))


def _pad(texts: Sequence[Tokens]) -> IntArray:
    """(n, W) texts of tokens, -1 after their ends."""
    width = max(map(len, texts))
    return np.array([[*text, *[PADDING] * (width - len(text))] for text in texts], dtype=np.int64)
