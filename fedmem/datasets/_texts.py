"""The common part of all data sets of texts: choice of clients, vocabulary, windows, train and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._splits import stratified_sample
from fedmem.errors import ComponentError
from fedmem.modalities import texts as texts_modality
from fedmem.modalities.text.tokenizer import Subwords, tokenizer_files
from fedmem.modalities.text.vocabulary import Tokens, Vocabulary
from fedmem.modalities.text.windows import Windows, cut_windows, inputs_and_targets


@dataclass(frozen=True, kw_only=True)
class Author:
    """An author that may become a client: all texts of the author, as one text, and attributes of the author."""

    name: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Texts(ABC):
    """Texts with their authors: inputs (n, L) int64 token numbers, targets (n, L) int64 the token after each, or -1.

    A row is a window of L + 1 tokens. Windows do not overlap, so that no token of the test set, nor of a population
    that is set aside, is trained on. `natural` is the author, numbered by name. The vocabulary is learnt from texts
    that no client trains on: the texts of other authors, and the test set. So it leaks nothing of clients.

    Fields

    - `tokens`: `characters`, `bytes` or `words`; see `fedmem.modalities.text.vocabulary`.
    - `words`: how many of the most frequent words have a number of their own, besides digits and punctuation.
    - `tokenizer`: instead of `tokens`, a folder with `tokenizer.json`, such as that of a pretrained model. Nothing is
      learnt then.
    - `length`: L, tokens of a row.
    - `clients`: how many authors become clients, those with the longest texts; null for all of them.
    - `min_chars`: the fewest characters that an author must have written to become a client.
    - `max_chars`: characters of a client that are used, from the first on; null for all.
    - `test`: share of the windows held out as the test set, alike of every client.
    """

    tokens: Tokens = "characters"
    words: Annotated[int, annotated_types.Ge(1)] = 2000
    tokenizer: Annotated[str, "identity_neutral"] = ""
    length: Annotated[int, annotated_types.Ge(2)] = 80
    clients: Annotated[int, annotated_types.Ge(1)] | None = 20
    min_chars: Annotated[int, annotated_types.Ge(1)] = 2000
    max_chars: Annotated[int, annotated_types.Ge(1)] | None = 20_000
    test: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.2

    def input_files(self) -> tuple[Path, ...]:
        """The file of the tokenizer."""
        return tokenizer_files(self.tokenizer)

    @abstractmethod
    def _authors(self) -> Sequence[Author]:
        """Everybody there is."""

    def load(self, rng: np.random.Generator) -> Dataset:
        """Choose the clients, draw the test set, learn the vocabulary, and number the tokens."""
        clients, others = self._choose_clients(sorted(self._authors(), key=lambda author: author.name))
        texts = [author.text[: self.max_chars] for author in clients]
        subwords = Subwords.read(self.tokenizer) if self.tokenizer else None
        everything = subwords or Vocabulary.learn(self.tokens, texts)
        windows = cut_windows([everything.tokens_of(text) for text in texts], self.length)
        self._require_two_windows(windows, clients)
        test = stratified_sample(windows.document, max(1, round(self.test * len(windows))), rng)
        held_out = [everything.decode(row[row >= 0]) for row in windows.tokens[test]]
        public = subwords or Vocabulary.learn(self.tokens, [*(author.text for author in others), *held_out], self.words)
        # Where a window ends does not depend on which tokens are known.
        inputs, targets = inputs_and_targets(
            cut_windows([public.tokens_of(text) for text in texts], self.length).tokens
        )
        examples = Examples(inputs=inputs, targets=targets, ids=np.arange(len(inputs)))
        train = np.setdiff1d(examples.ids, test)
        owner = windows.document[train]
        return Dataset(
            train=examples.take(train),
            test=examples.take(test),
            num_classes=len(public),
            modality=texts_modality.Texts(vocabulary=public.tokens, tokenizer=self.tokenizer),
            natural=owner,
            client_names=tuple(author.name for author in clients),
            text_starts=np.flatnonzero(windows.start == 0),
            sensitive={
                name: np.array([author.attributes[name] for author in clients])[owner] for name in clients[0].attributes
            },
        )

    def _choose_clients(self, authors: Sequence[Author]) -> tuple[list[Author], list[Author]]:
        """The clients, by name, and all other authors."""
        silent = next((author.name for author in authors if not author.text.strip()), None)
        if silent is not None:
            raise ComponentError("dataset", f"client {silent!r} has no text; give it some, or take it out of the data")
        order = sorted(authors, key=lambda author: (-len(author.text), author.name))
        able = [author for author in order if len(author.text) >= self.min_chars]
        count = len(able) if self.clients is None else self.clients
        if not able or len(able) < count:
            longest = f"; the longest text has {len(order[0].text)}" if order else ""
            raise ComponentError(
                "dataset.clients" if able else "dataset.min_chars",
                f"{count or 'some'} clients are needed, but {len(able)} of {len(order)} authors have {self.min_chars} "
                f"characters or more{longest}; lower clients or least",
            )
        names = {author.name for author in able[:count]}
        return [author for author in authors if author.name in names], [
            author for author in authors if author.name not in names
        ]

    def _require_two_windows(self, windows: Windows, clients: Sequence[Author]) -> None:
        """Two windows of each client at least, one for the test set."""
        counts = np.bincount(windows.document, minlength=len(clients))
        if counts.min() < 2:
            poorest = int(counts.argmin())
            raise ComponentError(
                "dataset.length",
                f"client {clients[poorest].name!r} has {counts[poorest]} windows of {self.length + 1} tokens, but "
                "needs two, one for the test set; lower length, or raise least",
            )
