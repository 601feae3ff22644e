"""Passages of Shakespeare's roles, with the role or its play as the class; ships with the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import annotated_types

from fedmem.datasets._labelled import LabelledText, TextsWithClasses
from fedmem.datasets.shakespeare import Shakespeare


@dataclass(frozen=True, kw_only=True)
class Speakers(TextsWithClasses):
    """Who says this? The speeches of the roles that say most, cut into passages of as many words each.

    A passage is the class of its role, or of its play, and a role is a natural client. The hundred longest roles are
    those of `shakespeare`, and need nothing fetched.

    Fields

    - `roles`: how many roles, those that say most.
    - `passage_words`: words of a passage; the rest of a role is left out.
    - `passages`: passages of each role, the first ones.
    - `target`: `role`, or `play`.

    >>> import numpy as np
    >>> data = Speakers(roles=3, passages=20).load(np.random.default_rng(0))
    >>> data.num_classes, len(data.train), data.modality.kind
    (3, 48, 'labelled_texts')
    """

    roles: Annotated[int, annotated_types.Ge(2), annotated_types.Le(100)] = 10
    passage_words: Annotated[int, annotated_types.Ge(1)] = 30
    passages: Annotated[int, annotated_types.Ge(2)] = 60
    target: Literal["role", "play"] = "role"

    def _texts(self) -> list[LabelledText]:
        authors = sorted(Shakespeare()._authors(), key=lambda author: (-len(author.text), author.name))
        texts: list[LabelledText] = []
        for author in authors[: self.roles]:
            words = author.text.split()
            count = min(self.passages, len(words) // self.passage_words)
            label = author.name if self.target == "role" else author.attributes["play"]
            for i in range(count):
                passage = " ".join(words[i * self.passage_words : (i + 1) * self.passage_words])
                texts.append(LabelledText(text=passage, label=label, client=author.name, row=len(texts)))
        return texts
