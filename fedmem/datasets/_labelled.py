"""The common part of data sets of texts with a class each: tokens of one length, classes, train and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._columns import in_order, positions
from fedmem.datasets._splits import stratified_sample
from fedmem.errors import ComponentError
from fedmem.modalities.labelled_texts import LabelledTexts
from fedmem.modalities.text.tokenizer import Subwords, tokenizer_files
from fedmem.modalities.text.vocabulary import Tokens, Vocabulary
from fedmem.modalities.text.windows import PADDING


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """A text with the name of its class and of its client; `row` is its number in the source."""

    text: str
    label: str
    client: str
    row: int


@dataclass(frozen=True, kw_only=True)
class TextsWithClasses(ABC):
    """Texts with a class each: inputs (n, L) int64 token numbers, -1 after the end of a text, targets (n,) int64.

    A vocabulary that is learnt is learnt from the test set alone, so that it leaks nothing of clients.

    Fields

    - `tokenizer`: a folder with `tokenizer.json`, such as that of a pretrained model, whose special tokens are added;
      empty for `tokens`.
    - `tokens`: without a tokenizer, `characters`, `bytes` or `words`; see `fedmem.modalities.text.vocabulary`.
    - `words`: how many of the most frequent words have a number of their own, besides digits and punctuation.
    - `max_tokens`: L, to which longer texts are cut.
    - `test`: share of the texts held out as the test set, alike of every class.
    """

    tokenizer: str = ""
    tokens: Tokens = "words"
    words: Annotated[int, annotated_types.Ge(1)] = 2000
    max_tokens: Annotated[int, annotated_types.Ge(2)] = 64
    test: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.2

    def input_files(self) -> tuple[Path, ...]:
        """The file of the tokenizer."""
        return tokenizer_files(self.tokenizer)

    @abstractmethod
    def _texts(self) -> Sequence[LabelledText]:
        """All texts."""

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the test set, encode, and number classes and clients by name."""
        texts = self._texts()
        names = in_order({text.label for text in texts})
        if len(names) < 2:
            message = f"all {len(texts)} texts have the class {names[0] if names else ''!r}; there is nothing to learn"
            raise ComponentError("dataset.target", f"{message}, so name another column")
        targets = positions(np.array([text.label for text in texts], dtype=object), names)
        test = stratified_sample(targets, max(1, round(self.test * len(texts))), rng)
        train = np.setdiff1d(np.arange(len(texts)), test)
        absent = np.setdiff1d(np.arange(len(names)), targets[train])
        if len(absent):
            message = f"class {names[absent[0]]!r} has no text to train on, since the test set has all; give it more"
            raise ComponentError("dataset.target", message)
        vocabulary = (
            Subwords.read(self.tokenizer)
            if self.tokenizer
            else Vocabulary.learn(self.tokens, [texts[row].text for row in test], self.words)
        )
        examples = Examples(
            inputs=self._encode(texts, vocabulary),
            targets=targets,
            ids=np.array([text.row for text in texts], dtype=np.int64),
        )
        clients = sorted({text.client for text in texts})
        owners = positions(np.array([text.client for text in texts], dtype=object), clients)
        return Dataset(
            train=examples.take(train),
            test=examples.take(test),
            num_classes=len(names),
            modality=LabelledTexts(vocabulary=vocabulary.tokens, tokenizer=self.tokenizer),
            natural=owners[train] if clients != [""] else None,
            client_names=() if clients == [""] else tuple(clients),
            class_names=names,
        )

    def _encode(self, texts: Sequence[LabelledText], vocabulary: Vocabulary) -> IntArray:
        """(n, L) the tokens of each text. A text that is cut keeps the last special token."""
        inputs = np.full((len(texts), self.max_tokens), PADDING, dtype=np.int64)
        for row, text in enumerate(texts):
            numbers = vocabulary.tokens_for_classes(text.text)
            if not len(numbers):
                raise ComponentError("dataset.text", f"row {text.row} has a text without any token; leave it out")
            cut = vocabulary.cut_for_classes(numbers, self.max_tokens)
            inputs[row, : len(cut)] = cut
        return inputs
