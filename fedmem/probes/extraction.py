"""Which secrets a model leaks: written when it is given their beginning, drawn, or found by a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, LabelValue, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.modalities.text.generation import Sampling, beam, draws_needed, edit_distance, log_probabilities
from fedmem.modalities.text.language_model import CausalModel, causal
from fedmem.modalities.text.shortest_path import search_most_probable
from fedmem.probes._leak_measures import EXTRACTED
from fedmem.probes._leakage_summary import at_last_participation, summed_up
from fedmem.probes._secrets import Question, questions
from fedmem.probes._subjects import labels_by_subject, require_texts, subjects_of_kinds

DRAWS = "draws_needed"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Extraction from language models, secret by secret, and the share of secrets that are extracted.

    A model is given the beginning of a secret, all tokens before the first that is asked for. It should write the rest:

    - `greedy`: 1 if the most probable token at each place gives the secret, verbatim, else 0;
    - `beam`: 1 if the secret is among the `width` texts of a beam search;
    - `greedy_within_distance`, `beam_within_distance`: the same where up to `distance` tokens may be put in, left out
      or replaced;
    - `draws_needed`: the n for which the secret is (n, p)-discoverable. That is the fewest draws of which one is the
      secret with probability `p`, from its exact probability under the sampling of `top_k` and `temperature`. From 1
      up; lower is worse for privacy; inf where it is never drawn. `discoverable` is 1 if that is at most `draws`;
    - `best_first`, where a template says what secrets look like: 1 if the secret is among the `members` most probable
      secrets that could follow the beginning. A best-first search finds them with at most `calls` tokens read. For a
      record of `personal` these are the values of the field: with `members: 1` that is attribute inference.

    All are about single models. Some are right by chance, such as a model that writes digits where digits stand. So
    each secret is also asked for in runs whose coin left it out. The label `place` says whose model it is (`owner`
    holds the secret, `others` do not). Further labels say what is counted. `guess_rate`, where it is known, is the
    success rate of as many guesses among the members of the template. `coin` = `out` marks secrets that the run did not
    train on.

    `summarise` gives the share of secrets by kind, for each round and in the summary. Its interval is at 95 %, by owner
    and by run, or Wilson's where that is wider. n counts pairs of a secret and a model. `.difference` is the share of
    secrets that are in minus that of secrets that are out, with Newcombe's interval where that is wider. The summary
    reads each secret in the last observed round in which its owning client took part, at all levels. `draws_needed` has
    no mean.

    Fields

    - `width`: texts that a beam keeps.
    - `distance`: most edits of a near match.
    - `top_k`: tokens that are drawn from, null for all.
    - `temperature`: divides logits before drawing.
    - `p`: p, the probability with which n draws should do.
    - `draws`: the most draws of what counts as discoverable.
    - `members`: how many members a search is to find.
    - `calls`: tokens that a search may read for one model and template; 0: no search.
    - `prompt`: tokens that a model is given where these are more than what comes before the secret, for passages.
    - `kinds`: injections whose examples are asked for; if left out, all that plant canaries.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look.

    The texts that models of the first four runs write at the last observed round are stored for the report, with the
    secrets.

    Guarantees: deterministic, nothing is drawn; reads `kept`; nothing is changed; the reading of a model does not
    depend on other models. Among equally likely tokens the lowest number is written first. An extracted secret proves
    that it is memorised only where it is extracted more often than by chance.

    Errors: `ComponentError` for data that are no text, and kinds that no injection has.

    >>> Extraction().levels
    ('local', 'global')

    References: Carlini, Liu, Erlingsson, Kos and Song (2019), by search; Thakkar, Ramaswamy, Mathews and Beaufays
    (2021), by beam; Hayes et al. (2025), (n, p)-discoverable extraction.
    """

    measures: ClassVar[tuple[Measure, ...]] = EXTRACTED
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("guess_rate", "number", "the odds of as many guesses among the members of the template"),
        Label("distance", "whole", "the most edits of a near match"),
        Label("width", "whole", "the texts that a beam holds"),
        Label("p", "number", "the probability with which so many draws should do"),
        Label("top_k", "text", "the tokens that are drawn from"),
        Label("temperature", "number", "what logits are divided by before drawing"),
        Label("draws", "whole", "the most draws of what counts as discoverable"),
        Label("members", "whole", "how many members a search finds"),
        Label("calls", "whole", "the tokens that a search may read"),
    )
    compares_held_out: ClassVar[bool] = True

    width: Annotated[int, Gt(0)] = 5
    distance: Annotated[int, Gt(0)] = 1
    top_k: Annotated[int, Gt(0)] | None = 40
    temperature: Annotated[float, Gt(0)] = 1.0
    p: Annotated[float, Gt(0), Lt(1)] = 0.5
    draws: Annotated[int, Gt(0)] = 1000
    members: Annotated[int, Gt(0)] = 10
    calls: Annotated[int, Ge(0)] = 0
    prompt: Annotated[int, Gt(0)] | None = None
    names_injections: ClassVar[tuple[str, ...]] = ("kinds",)

    kinds: tuple[str, ...] = ()
    runs: Annotated[int, Gt(0)] = 32
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Readings of each secret under each model."""
        federation = context.federation
        all_questions = questions(federation, self._subjects(federation), self.prompt)
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.run < self.runs:
                model = causal(federation.model, transition.kept)
                if transition.run < _SHOWN_RUNS and transition.round == context.observed_rounds[-1]:
                    self._keep_texts(model, all_questions, transition, context)
                for question in all_questions:
                    readings += [(transition, reading) for reading in self._of(model, question, transition, federation)]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Shares by kind and what secrets that are in have over those out, of each round and in the summary."""
        counted = [measurement for measurement in measurements if measurement.reading.metric != DRAWS]
        return summed_up(counted, self.measures, at_last_participation(counted))

    def _keep_texts(
        self, model: CausalModel, all_questions: Sequence[Question], transition: Transition, context: Context
    ) -> None:
        """The texts that the owning client's model and the aggregate write in place of secrets, for the report."""
        federation, level, client = context.federation, transition.level, transition.client
        holds = federation.audit.holds([client])[0]
        rows: list[tuple[int, str, str]] = []
        for question in all_questions if level in ("local", "global") else ():
            asked = [i for i, subject in enumerate(question.subjects) if client == NO_CLIENT or holds[subject]]
            if asked:
                tokens = beam(model, question.prefix, question.rests.shape[1]).tokens[0]
                text = federation.modality.decode(tokens)
                rows += [(question.subjects[i], federation.modality.decode(question.rests[i]), text) for i in asked]
        if rows:
            subjects, secrets, texts = zip(*rows, strict=True)
            arrays = {"subject": np.array(subjects), "secret": np.array(secrets), "written": np.array(texts)}
            context.keep(f"written/{level}/run_{transition.run}/client_{client}", arrays)

    def _subjects(self, federation: Federation) -> list[int]:
        """The audit examples that are asked for."""
        require_texts(federation, "extraction")
        return subjects_of_kinds(federation, self.kinds, federation.audit.role == "canary")

    def _of(
        self, model: CausalModel, question: Question, transition: Transition, federation: Federation
    ) -> Iterator[Reading]:
        """The readings of one model for secrets with the same beginning."""
        about = labels_by_subject(federation, transition, question.subjects)
        positions = [i for i, subject in enumerate(question.subjects) if subject in about]
        if not positions:
            return
        rests = question.rests[positions]
        by_metric = self._count_extracted(
            model, question, rests, [question.number[i] for i in positions] if question.space else []
        )
        for i, place in enumerate(positions):
            subject = question.subjects[place]
            for metric, (search_labels, values) in by_metric.items():
                labels = Labels.of({**search_labels, **about[subject]})
                yield Reading(metric=metric, value=float(values[i]), subject=str(subject), labels=labels)

    def _count_extracted(
        self, model: CausalModel, question: Question, rests: IntArray, numbers: Sequence[int]
    ) -> dict[str, tuple[_Counted, Sequence[float]]]:
        """By metric its labels and a value for each of these secrets."""
        texts = beam(model, question.prefix, rests.shape[1], self.width).tokens
        greedy = texts[:1] if self.width == 1 else beam(model, question.prefix, rests.shape[1]).tokens
        away = np.array([[edit_distance(text, rest) for text in (*greedy, *texts)] for rest in rests])
        size = question.space.size if question.space else 0
        near: _Counted = {"distance": self.distance}
        width: _Counted = {"width": self.width}
        logs = log_probabilities(
            model, question.prefix, rests, Sampling(top_k=self.top_k, temperature=self.temperature)
        )
        needed = [draws_needed(log, self.p) for log in logs.tolist()]
        scheme: _Counted = {
            "p": float(f"{self.p:g}"),
            "top_k": str(self.top_k or "all"),
            "temperature": float(f"{self.temperature:g}"),
        }
        by_metric: dict[str, tuple[_Counted, Sequence[float]]] = {
            "greedy": (_odds_text(1, size), (away[:, 0] == 0).tolist()),
            "greedy_within_distance": (near, (away[:, 0] <= self.distance).tolist()),
            "beam": ({**width, **_odds_text(self.width, size)}, (away[:, 1:].min(axis=1) == 0).tolist()),
            "beam_within_distance": ({**width, **near}, (away[:, 1:].min(axis=1) <= self.distance).tolist()),
            DRAWS: (scheme, needed),
            "discoverable": ({"draws": self.draws, **scheme}, [n <= self.draws for n in needed]),
        }
        if question.space and self.calls:
            best = search_most_probable(model, question.space, self.members, calls=self.calls, at_once=32)
            search_labels = {"members": self.members, "calls": self.calls, **_odds_text(self.members, size)}
            by_metric["best_first"] = (search_labels, [number in best.numbers for number in numbers])
        return by_metric


_SHOWN_RUNS = 4
"""Runs whose written texts are kept for the report."""

_Counted = dict[str, LabelValue | None]
"""Labels that say what is counted."""


def _odds_text(guesses: int, size: int) -> _Counted:
    """The odds of so many different guesses among the members of a template, as a label, where there is one.

    >>> _odds_text(5, 10**6), _odds_text(1, 0)
    ({'guess_rate': 5e-06}, {})
    """
    return {"guess_rate": float(f"{min(1.0, guesses / size):.3g}")} if size else {}
