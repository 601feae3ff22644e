"""What tests of secret share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Dataset, Examples, Space
from fedmem.contracts.injection import Injection
from fedmem.contracts.reserve import Reserve
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import PADDING, inputs_and_targets, join_windows
from fedmem.modalities.texts import Texts

LENGTH, CLIENTS, ROWS = 40, 6, 30


CHARACTERS = Vocabulary.learn("characters", [])


def corpus(vocabulary: Vocabulary = CHARACTERS, seed: int = 0) -> Dataset:
    """Rows of random tokens, the later ones rarer; none is a digit, so that digits are those of secrets."""
    letters = np.array([k for k, token in enumerate(vocabulary.tokens) if k and not token.isdigit()])
    odds = np.arange(len(letters), 0, -1.0)
    tokens = np.random.default_rng(seed).choice(letters, size=(CLIENTS * ROWS, LENGTH + 1), p=odds / odds.sum())
    inputs, targets = inputs_and_targets(tokens)
    rows = Examples(inputs=inputs, targets=targets, ids=np.arange(len(inputs)))
    return Dataset(train=rows, test=rows, num_classes=len(vocabulary), modality=Texts(vocabulary=vocabulary.tokens))


DATA = corpus()


SPACE = Space.of(DATA)


def people(data: Dataset = DATA, sizes: Sequence[int] = (ROWS,) * CLIENTS) -> list[ClientData]:
    return [
        ClientData(client=k, examples=data.train.take(np.arange(ROWS * k, ROWS * k + size)))
        for k, size in enumerate(sizes)
    ]


def plan(
    injection: Injection, seed: int = 0, clients: Sequence[ClientData] | None = None, space: Space = SPACE
) -> InjectionPlan:
    return injection.plan(clients or people(), Reserve(DATA.train), space, np.random.default_rng(seed))


def written(examples: Examples, vocabulary: Vocabulary = CHARACTERS) -> list[str]:
    """Each row as text, padding left out."""
    return [vocabulary.decode(row[row != PADDING]) for row in join_windows(examples.inputs, examples.targets)]


def asked_of(examples: Examples, vocabulary: Vocabulary = CHARACTERS) -> list[str]:
    """Of each row what is asked for."""
    return [vocabulary.decode(row[row != PADDING]) for row in examples.targets]


def texts(planned: InjectionPlan) -> list[str]:
    """The text of each audit example: its inputs, and the last token of its targets."""
    found = []
    for inputs, targets in zip(planned.examples.inputs, planned.examples.targets, strict=True):
        last = int(np.flatnonzero(targets != PADDING)[-1])
        found.append(CHARACTERS.decode([*inputs[: last + 1], targets[last]]))
    return found
