"""A verifier of identities: a distance between images that is learnt from people whom no client has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.errors import ComponentError
from fedmem.modalities.pixels import Pixels

if TYPE_CHECKING:
    from fedmem.modalities.modality import Modality

FEWEST = 4
"""The fewest identities of a verifier: two to learn from, and two to judge it by."""

RIDGE = 1.0
"""Added to the covariance, as a multiple of the mean variance of a pixel."""


def vectors_of(modality: Modality, rows: NDArray[Any], place: str) -> FloatArray:
    """(n, D) the pixels of rows as `comparison_rows` has them. Errors: `ComponentError` for data that are no images."""
    if modality.tokens and not isinstance(modality, Pixels):
        raise ComponentError(
            place, f"a verifier compares images, but the data are {modality.kind}; leave `identities` out"
        )
    images = modality.images(rows) if isinstance(modality, Pixels) else rows
    return np.asarray(images, dtype=np.float64).reshape(len(rows), -1)


def fit_verifier(vectors: FloatArray, groups: IntArray) -> FloatArray:
    """(D, D) the matrix L for which ‖(a − b) L‖ is the distance of the verifier.

    Let S be the covariance within groups, such as the images of one class by one person. Then L Lᵀ = (S + r I)⁻¹, where
    r is the mean variance of a pixel. Directions in which one person varies count less than those in which people
    differ. Without variation within groups, L is the identity, so that the distance is that between pixels.

    >>> within = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0], [2.0, 5.0]])
    >>> matrix = fit_verifier(within, np.array([0, 0, 1, 1]))
    >>> bool(np.linalg.norm([1.0, 0.0] @ matrix) < np.linalg.norm([0.0, 1.0] @ matrix))
    True
    """
    names, number = np.unique(groups, return_inverse=True)
    counts = np.bincount(number)
    means = np.stack([np.bincount(number, weights=column) / counts for column in vectors.T], axis=1)
    residuals = vectors - means[number]
    covariance = residuals.T @ residuals / max(len(vectors) - len(names), 1)
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance)
    if not ridge > 0:
        return np.eye(len(covariance))
    return np.asarray(np.linalg.cholesky(np.linalg.inv(covariance + ridge * np.eye(len(covariance)))))


def euclidean(first: FloatArray, second: FloatArray) -> FloatArray:
    """(m, n) distances between rows; equal rows have distance 0 exactly.

    >>> euclidean(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0], [0.0, 3.0]])).tolist()
    [[5.0, 0.0]]
    """
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(first, second))


def nearest_same(distances: FloatArray, identity: IntArray) -> FloatArray:
    """(n,) whether the nearest other row has the same identity, from distances (n, n); ties are shared.

    >>> nearest_same(np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0]]), np.array([0, 0, 1])).tolist()
    [0.5, 1.0, 0.0]
    """
    others = np.where(np.eye(len(identity), dtype=bool), np.inf, distances)
    nearest = (others == others.min(axis=1, keepdims=True)).astype(np.float64)
    nearest /= nearest.sum(axis=1, keepdims=True)
    return np.asarray((nearest * (identity[:, None] == identity)).sum(axis=1))


def held_out_accuracies(vectors: FloatArray, identity: IntArray, classes: IntArray) -> tuple[FloatArray, FloatArray]:
    """(K,) how often the nearest other row is of the same identity, by identity: for the verifier, and for pixels.

    Identities are split into two halves, alternately. A verifier that is fitted to one half is judged on rows of the
    other, among rows of that half alone. So it never saw the people by whom it is judged. Pixels are judged on the
    same rows.

    Errors: `ComponentError` with fewer than four identities.
    """
    names, number = np.unique(identity, return_inverse=True)
    if len(names) < FEWEST:
        raise ComponentError(
            "probes.identities",
            f"the data have {len(names)} identities, but a verifier needs {FEWEST} at least, half of them to judge it",
        )
    groups = groups_of(identity, classes)
    accuracy: list[FloatArray] = [np.full(len(names), np.nan), np.full(len(names), np.nan)]
    for half in (0, 1):
        fitted, judged = number % 2 != half, number % 2 == half
        matrix, rows = fit_verifier(vectors[fitted], groups[fitted]), vectors[judged]
        for which, points in enumerate((rows @ matrix, rows)):
            hits = nearest_same(euclidean(points, points), identity[judged])
            for place in range(half, len(names), 2):
                accuracy[which][place] = hits[number[judged] == place].mean()
    return accuracy[0], accuracy[1]


def groups_of(identity: IntArray, classes: IntArray) -> IntArray:
    """(n,) a number for each pair of an identity and a class."""
    pairs = np.stack([np.unique(part, return_inverse=True)[1] for part in (identity, classes)])
    return np.asarray(np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1))


def random_accuracy(identity: IntArray) -> float:
    """How often a random other row has the same identity.

    >>> random_accuracy(np.array([0, 0, 1, 1]))
    0.3333333333333333
    """
    counts = np.unique(identity, return_counts=True)[1]
    n = len(identity)
    return float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else float("nan")


def require_strangers(rows: FloatArray, identity: IntArray, gallery: FloatArray, place: str) -> None:
    """Errors: `ComponentError` for an identity of which most rows are also rows of clients."""
    known = {row.tobytes() for row in np.ascontiguousarray(gallery)}
    is_known = np.array([row.tobytes() in known for row in np.ascontiguousarray(rows)])
    for name in np.unique(identity).tolist():
        share = is_known[identity == name].mean()
        if share > 0.5:
            raise ComponentError(
                place, f"{share:.0%} of the rows of identity {name} are rows of clients; name people whom no client has"
            )
