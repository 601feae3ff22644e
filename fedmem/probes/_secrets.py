"""Audit examples of a text as questions: what a model is given, and what it should not be able to write after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.federation import Federation
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.windows import prefix_and_start


@dataclass(frozen=True, kw_only=True)
class Question:
    """c secrets with the same beginning, `prefix`: the rest of each, `rests` (c, length), and their `subjects`.

    `number` (c,) is the member that each is of `space`, all that could follow, where there is a template.
    """

    prefix: tuple[int, ...]
    rests: IntArray
    subjects: tuple[int, ...]
    space: Candidates | None = None
    number: tuple[int, ...] = ()


def questions(federation: Federation, subjects: Sequence[int], prompt: int | None) -> list[Question]:
    """The questions for these audit examples, those that begin alike and are equally long as one.

    A model is given all tokens before the first that is asked for, or the first `prompt` tokens where these are more.
    It should write the rest, up to the last token that is asked for. Where nothing is left, there is no question.
    """
    spaces = {references.family: references.space or references.records for references in federation.references}
    examples = federation.audit.examples
    groups: dict[tuple[str, tuple[int, ...], int], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for subject in subjects:
        text, first = prefix_and_start(examples.inputs[subject], examples.targets[subject])
        cut = max(first, prompt or 0)
        if cut < len(text):
            key = (str(federation.audit.kind[subject]), text[:cut], len(text) - cut)
            groups[key].append((subject, text[cut:]))
    all_questions = []
    for (kind, beginning, _), members in groups.items():
        whole = spaces.get(kind)
        space = None if whole is None else whole.with_prefix(beginning)
        all_questions.append(
            Question(
                prefix=beginning,
                rests=np.array([rest for _, rest in members], dtype=np.int64),
                subjects=tuple(subject for subject, _ in members),
                space=space,
                number=tuple(space.index(beginning + rest) for _, rest in members) if space else (),
            )
        )
    return all_questions
