"""Where the copies of a secret stand: with how many clients, how often with each, and where in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING, inputs_and_targets, join_windows
from fedmem.modalities.texts import Texts
from fedmem.wording import client_with_name

Position = Literal["alone", "start", "end", "random"]
"""Where in a row of training text a secret stands: in a row of its own, or over tokens of one of the owner's rows."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The distribution of secrets: `owners` clients hold each, with `copies`, or a `share`, at each client."""

    owners: int
    copies: int
    share: float | None
    position: Position

    def total(self, secrets: int, num_owners: int, num_rows: int) -> int:
        """The most copies of this many secrets that these clients, with at most this many rows, train on."""
        if self.share is None:
            return secrets * self.owners * self.copies
        per_owner = secrets // num_owners * self.owners
        return per_owner * (int(self.share * num_rows) + num_owners)

    def groups(self, count: int, per_client: int, rng: np.random.Generator) -> list[list[int]]:
        """For each secret which of `count` clients hold it, its owner first; each client holds equally many.

        Clients are put in a random circle, and each shares its secret with those that follow; a new circle for each of
        `per_client` secrets.
        """
        if self.owners > count:
            raise ComponentError(
                "injections.shared_by",
                f"{self.owners} clients should hold each secret, but this injection has {count} clients; lower "
                "shared_by, or let more clients hold secrets (`clients`)",
            )
        groups_of_client: list[list[list[int]]] = [[] for _ in range(count)]
        for _ in range(per_client):
            circle = rng.permutation(count)
            for i, first in enumerate(circle.tolist()):
                groups_of_client[first].append([int(circle[(i + step) % count]) for step in range(self.owners)])
        return [group for groups in groups_of_client for group in groups]

    def copies_of(self, client: ClientData) -> int:
        """The number of times that a client trains on each of its secrets in an epoch."""
        return self.copies if self.share is None else max(1, round(self.share * len(client.examples)))

    def hosts(self, client: ClientData, count: int, secret: Sequence[int], rng: np.random.Generator) -> IntArray:
        """(count, L + 1) windows of the client's own text with the secret in each; each as rarely as can be."""
        rows = join_windows(client.examples.inputs, client.examples.targets)
        rows = rows[(rows != PADDING).all(axis=1)]
        if not len(rows):
            raise ComponentError(
                "injections.position",
                f"{client_with_name(client.client, client.name)} has no row of {client.examples.inputs.shape[1] + 1} "
                "tokens that a secret could stand in; write `position: alone`, or lower dataset.length",
            )
        order = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-count // len(rows)))])
        windows: IntArray = rows[order[:count]].copy()
        room = windows.shape[1] - len(secret)
        starts = {"start": np.zeros(count, int), "end": np.full(count, room)}.get(self.position)
        starts = rng.integers(room + 1, size=count) if starts is None else starts
        windows[np.arange(count)[:, None], starts[:, None] + np.arange(len(secret))] = secret
        return windows


def plant(
    secrets: Sequence[Sequence[int]],
    asked_for: Sequence[Sequence[bool]],
    clients: Sequence[ClientData],
    sharing: Sharing,
    length: int,
    rng: np.random.Generator,
) -> InjectionPlan:
    """Put secrets, as tokens, equally many with each client, in its order; `asked_for` says which tokens are secret.

    The audit example is the secret at the start of a row, and nothing else is asked there than what is secret. What is
    trained on asks for every token: the same row, or one of the owner's own with the secret in it.
    """
    examples = secret_examples(secrets, asked_for, length)
    groups = sharing.groups(len(clients), len(secrets) // len(clients), rng)
    rows: list[IntArray] = []
    positions: list[int] = []
    owners: list[int] = []
    copies: list[int] = []
    for tokens, group in zip(secrets, groups, strict=True):
        counts = [sharing.copies_of(clients[k]) for k in group]
        start = len(rows)
        if sharing.position == "alone":
            rows.append(pad(tokens, length + 1))
            positions += [start] * sum(counts)
        else:
            for k, count in zip(group, counts, strict=True):
                rows += list(sharing.hosts(clients[k], count, tokens, rng))
            positions += range(start, len(rows))
        owners += [clients[k].client for k, count in zip(group, counts, strict=True) for _ in range(count)]
        copies.append(sum(counts))
    inputs, targets = inputs_and_targets(np.array(rows, dtype=np.int64).reshape(len(rows), length + 1))
    same = sharing.position == "alone" and np.array_equal(targets, examples.targets)
    return InjectionPlan(
        examples=examples,
        owner=np.array([clients[group[0]].client for group in groups], dtype=np.int32),
        copies=np.array(copies, dtype=np.int32),
        extra=None if same else Examples(inputs=inputs, targets=targets, ids=-1 - np.arange(len(rows))),
        copy_index=None if same else np.array(positions, dtype=np.int64),
        owners=np.array(owners, dtype=np.int32) if sharing.owners > 1 else None,
    )


def secret_examples(secrets: Sequence[Sequence[int]], asked_for: Sequence[Sequence[bool]], length: int) -> Examples:
    """Rows that begin with these tokens, in which only those of the secret are asked for; ids are negative."""
    inputs, targets = inputs_and_targets(
        np.array([pad(tokens, length + 1) for tokens in secrets]).reshape(-1, length + 1)
    )
    is_secret = np.zeros((len(secrets), length + 1), dtype=bool)
    for row, mask in enumerate(asked_for):
        is_secret[row, : len(mask)] = mask
    return Examples(
        inputs=inputs, targets=np.where(is_secret[:, 1:], targets, PADDING), ids=-1 - np.arange(len(secrets))
    )


def pad(tokens: Sequence[int], width: int) -> IntArray:
    """(width,) these tokens and padding."""
    assert len(tokens) <= width
    return np.array([*tokens, *[PADDING] * (width - len(tokens))], dtype=np.int64)


def text_of(space: Space, kind: str) -> Vocabulary:
    """The vocabulary of the data; `ComponentError` where they are no text."""
    if not isinstance(space.modality, Texts):
        raise ComponentError(
            "injections", f"{kind} writes tokens into texts, but inputs have shape {space.shape}; use random_pattern"
        )
    vocabulary = space.modality.coder
    if vocabulary is None:
        raise ComponentError("injections", f"{kind} writes texts, but the data set has no vocabulary; give it one")
    return vocabulary


def fits(longest: int, space: Space, path: str) -> None:
    """Errors: `ComponentError` if a secret of so many tokens does not fit into a row."""
    width = space.shape[0] + 1
    if longest > width:
        raise ComponentError(
            path,
            f"a secret has up to {longest} tokens, but a row has {width}; shorten it, or write `length: {longest - 1}` "
            "in the data set",
        )


def draw_tokens(space: Space, size: int | tuple[int, ...], rng: np.random.Generator) -> IntArray:
    """Tokens drawn independently by their frequency in the data, `<unk>` left out."""
    odds = space.frequencies.copy()
    odds[[number for number, token in enumerate(text_of(space, "this").tokens) if token == UNKNOWN]] = 0
    return rng.choice(len(odds), size=size, p=odds / odds.sum())
