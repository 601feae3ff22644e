"""Features by which rows of the store are duplicates: their content, or the n-grams of their tokens."""

from __future__ import annotations

import hashlib

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.client import ClientAlgorithm, client_declaration
from fedmem.contracts.data import Examples
from fedmem.contracts.deduplication import Duplicates
from fedmem.contracts.federation import Federation
from fedmem.contracts.ragged import Ragged
from fedmem.modalities.text.windows import texts

NGRAM = 5
"""Tokens of an n-gram; a shorter text is one n-gram."""


def duplicates_of(client: ClientAlgorithm, store: Examples) -> Duplicates | None:
    """The features by which a client finds duplicates among its rows; None where it does not deduplicate.

    Exact duplicates have equal inputs and equal targets. Near duplicates have a Jaccard index of their n-grams of 5
    tokens, each counted once, of at least `overlap`.
    """
    rule = client_declaration(client).deduplication
    if rule is None:
        return None
    if rule.by == "exact":
        return Duplicates(
            features=Ragged.split(_content_numbers(store), np.ones(len(store), dtype=np.int64)), overlap=1.0
        )
    return Duplicates(features=_ngrams(texts(store.inputs.astype(np.int64), store.targets)), overlap=rule.overlap)


def _content_numbers(store: Examples) -> IntArray:
    """(n,) a number for each row, equal for rows with equal inputs and targets."""
    numbers: dict[bytes, int] = {}
    rows = (
        hashlib.blake2b(np.ascontiguousarray(row).tobytes() + target.tobytes(), digest_size=16).digest()
        for row, target in zip(store.inputs, store.targets, strict=True)
    )
    return np.array([numbers.setdefault(row, len(numbers)) for row in rows], dtype=np.int64)


def _ngrams(tokens: IntArray) -> Ragged:
    """The numbers of the n-grams of each text (n, L + 1), -1 after its end, each once and sorted."""
    numbers: dict[tuple[int, ...], int] = {}
    parts: list[list[int]] = []
    for row in tokens.tolist():
        text = tuple(token for token in row if token >= 0)
        grams = [text[start : start + NGRAM] for start in range(max(1, len(text) - NGRAM + 1))]
        parts.append(sorted({numbers.setdefault(gram, len(numbers)) for gram in grams}))
    return Ragged.of(parts)


def effects_of(duplicates: Duplicates, federation: Federation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences about the rows that clients leave out where all audit examples are in: notes, and warnings."""
    subject, owners = federation.audit.subject, federation.audit.owners
    is_left = np.zeros(len(federation.audit), dtype=bool)
    base_left = copies_left = 0
    for client, base in enumerate(federation.base):
        copies = np.flatnonzero(owners == client)
        kept = duplicates.keep_first(np.concatenate([base, federation.trained_rows[copies]]))
        base_left += int(np.isin(base, kept).sum())
        own = np.isin(federation.trained_rows[copies], kept)
        is_left[subject[copies[own]]] = True
        copies_left += len(kept) - int(np.isin(base, kept).sum())
    base_count, copy_count = sum(map(len, federation.base)), int((owners >= 0).sum())
    note = (
        f"clients leave out duplicates among their rows. They train on {base_left} of {base_count} base rows, and on "
        f"{copies_left} of {copy_count} copies of audit examples where all of these are in"
    )
    lost = int((~is_left & (federation.audit.owner >= 0)).sum())
    warning = (
        f"{lost} audit examples are duplicates of other rows of their clients. No client trains on them, also where "
        "they are in, so that in and out runs hardly differ"
    )
    return (note,), (warning,) if lost else ()
