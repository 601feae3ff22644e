"""How much of a text a model continues verbatim when it is given the first tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le, MinLen

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, LabelValue, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.modalities.text.continuations import bleu, common_prefixes, continue_greedily, edit_distances
from fedmem.modalities.text.language_model import CausalModel, causal
from fedmem.modalities.text.windows import prefix_and_start
from fedmem.probes._leak_measures import CONTINUED
from fedmem.probes._leakage_summary import at_last_participation, summed_up
from fedmem.probes._subjects import labels_by_subject, require_texts, subjects_of_kinds

BLEU = 0.75
"""BLEU above which a continuation is approximately memorised (Ippolito et al., 2023)."""


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """Verbatim continuation of audit texts, secrets and passages alike, from a prefix of k tokens.

    A model is given the first k tokens of a text and writes the most probable token, again and again. The n tokens that
    follow in the text, up to `suffix`, are compared with what it writes:

    - `verbatim_continuation`: 1 if all n tokens are the same, else 0 (Carlini et al., 2021 and 2023);
    - `near_verbatim`: 1 if 1 − `edit_distance` is at least `near`, else 0;
    - `bleu_verbatim`: 1 if BLEU of the continuation is above 0.75, else 0 (approximate memorisation of Ippolito et al.,
      2023). NaN below four tokens;
    - `common_prefix`: the tokens before the first that differs, 0 to n;
    - `edit_distance`: the fewest insertions, deletions and replacements, divided by n, 0 to 1. Lower is worse.

    `near_verbatim` is defined for every length and every kind of token, so it is the headline. BLEU asks for runs of
    four shared tokens. On words it is stricter for scattered edits, and it forgives parts in another order.

    Common texts are continued by any good model. So each text is also asked for in runs whose coin left it out. The
    label `prefix` is k. The label `place` says whose model it is: `owner` holds the text, `others` do not. `coin` =
    `out` marks texts that the run did not train on.

    `summarise` gives means by kind, place and prefix, for each round and in the summary, and `.difference`, in − out.
    Intervals and rounds are those of the probe `extraction`.

    Fields

    - `prefixes`: the numbers of tokens that a model is given. A secret is always given with all tokens before the first
      that is asked for, also where these are more.
    - `suffix`: the most tokens that a model writes, null for the rest of the text.
    - `near`: the smallest edit similarity of `near_verbatim`.
    - `kinds`: injections whose examples are asked for; if left out, all.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look.

    Guarantees: deterministic, nothing is drawn; reads `kept`; nothing is changed; the readings of a model do not depend
    on other models. Of equally likely tokens the lowest number is written.

    Errors: `ComponentError` for data that are no text, for kinds that no injection has, and if no text has a token
    after the shortest prefix.

    >>> Verbatim().prefixes
    (16,)

    References: Carlini et al. (2021), Extracting training data from large language models. Carlini et al. (2023),
    Quantifying memorization across neural language models. Ippolito et al. (2023), Preventing verbatim memorization in
    language models gives a false sense of privacy.
    """

    measures: ClassVar[tuple[Measure, ...]] = CONTINUED
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("prefix", "whole", "the tokens that a model is given"),
        Label("near", "number", "the smallest edit similarity that is nearly verbatim"),
    )
    compares_held_out: ClassVar[bool] = True

    prefixes: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] = (16,)
    suffix: Annotated[int, Gt(0)] | None = 50
    near: Annotated[float, Gt(0), Le(1)] = 0.9
    names_injections: ClassVar[tuple[str, ...]] = ("kinds",)

    kinds: tuple[str, ...] = ()
    runs: Annotated[int, Gt(0)] = 32
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Readings of each text under each model, for each prefix."""
        federation = context.federation
        passages = self._passages(federation)
        subjects = sorted({subject for passage in passages for subject in passage.subjects})
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.run < self.runs:
                about = labels_by_subject(federation, transition, subjects)
                model = causal(federation.model, transition.kept)
                for passage in passages:
                    for subject, metric, value, extra in self._values(model, passage, about):
                        labels = Labels.of({**about[subject], **extra})
                        reading = Reading(metric=metric, value=value, subject=str(subject), labels=labels)
                        readings.append((transition, reading))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and what texts that are in have over those out, of each round and in the summary."""
        return summed_up(measurements, self.measures, at_last_participation(measurements))

    def _passages(self, federation: Federation) -> list[_Passages]:
        """The texts that are asked for, those that are cut at the same places together."""
        require_texts(federation, "verbatim")
        audit = federation.audit
        subjects = subjects_of_kinds(federation, self.kinds, np.ones(len(audit), dtype=bool))
        groups: dict[tuple[int, int, int], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
        for subject in subjects:
            text, first = prefix_and_start(audit.examples.inputs[subject], audit.examples.targets[subject])
            for prefix in dict.fromkeys(self.prefixes):
                cut = max(first, prefix)
                end = len(text) if self.suffix is None else min(len(text), cut + self.suffix)
                if cut < end:
                    groups[prefix, cut, end].append((subject, text[:end]))
        if subjects and not groups:
            raise ComponentError(
                "probes.prefixes",
                f"no audit text has more than {min(self.prefixes)} tokens, so that nothing is left to continue. Write "
                "a shorter prefix, or have longer rows (`length` of the data set)",
            )
        return [
            _Passages(
                prefix=prefix,
                cut=cut,
                tokens=np.array([text for _, text in members], dtype=np.int64),
                subjects=tuple(subject for subject, _ in members),
            )
            for (prefix, cut, _), members in groups.items()
        ]

    def _values(
        self, model: CausalModel, passages: _Passages, about: dict[int, dict[str, LabelValue | None]]
    ) -> Iterator[tuple[int, str, float, dict[str, LabelValue | None]]]:
        """Subject, metric, value and further labels of every text that the model may be asked for."""
        rows = [row for row, subject in enumerate(passages.subjects) if subject in about]
        if not rows:
            return
        tokens = passages.tokens[rows]
        truth = tokens[:, passages.cut :]
        written = continue_greedily(model, tokens[:, : passages.cut], truth.shape[1])
        for metric, values in self._scores(written, truth).items():
            extra: dict[str, LabelValue | None] = {"prefix": passages.prefix}
            if metric == "near_verbatim":
                extra["near"] = self.near
            for row, value in zip(rows, values.tolist(), strict=True):
                yield passages.subjects[row], metric, float(value), extra

    def _scores(self, written: IntArray, truth: IntArray) -> dict[str, FloatArray]:
        """The value of each measure for each of n continuations (n, length) of at least one token."""
        distance = edit_distances(written, truth) / truth.shape[1]
        bleus = np.array([bleu(text, true) for text, true in zip(written, truth, strict=True)])
        return {
            "verbatim_continuation": (written == truth).all(axis=1).astype(np.float64),
            # a similarity that is `near` but for rounding counts
            "near_verbatim": (1 - distance >= self.near - 1e-12).astype(np.float64),
            "bleu_verbatim": np.where(np.isnan(bleus), np.nan, bleus > BLEU),
            "common_prefix": common_prefixes(written, truth).astype(np.float64),
            "edit_distance": distance,
        }


@dataclass(frozen=True, kw_only=True)
class _Passages:
    """n texts `tokens` (n, end) of which a model is given the first `cut`, for the prefix that was asked for."""

    prefix: int
    cut: int
    tokens: IntArray
    subjects: tuple[int, ...]
