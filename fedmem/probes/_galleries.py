"""Against what a reconstruction is held: images that a victim could be taken for, and guesses that need no update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmem.components import Context, Reconstruction
from fedmem.probes._cases import Case
from fedmem.types import IntArray

Images = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Images (G, *shape) none of which is behind the update; the first `peers` of them are like the victim.

    Whoever is exchangeable with its peers is identified without any leakage with a chance of at most 1 / (peers + 1),
    and of just that where all are peers.
    """

    images: Images
    peers: int


def gallery(kind: str, role: str, case: Case, most: int, context: Context) -> Gallery:
    """The images among which an example of this kind is sought in this case; empty where it has no peers.

    Canaries are sought among the fresh references of their family, exactly their peers. Other examples are sought among
    real images: the population, the test set and rows of other clients, up to `most` in all. These are about the peers
    of typical examples; of every other kind the peers are the examples of the same kind that other clients hold, and
    come first. Real images are no peers where clients see them differently. It depends on no coin of the case.
    """
    federation = context.federation
    audit, store = federation.audit, federation.store.inputs
    families = {references.family: references.inputs for references in federation.references}
    if kind in families:
        return Gallery(images=families[kind], peers=len(families[kind]))
    if federation.shifted:
        return Gallery(images=store[:0], peers=0)
    others = np.flatnonzero((audit.kind == kind) & ~audit.holds(case.clients).any(axis=0))
    same = audit.examples.inputs[others if role != "typical" else others[:0]][:most]
    if role != "typical" and not len(same):
        return Gallery(images=store[:0], peers=0)
    fresh = np.concatenate([federation.population.inputs, federation.test.inputs])
    room = max(0, most - len(same))
    rest = store[_elsewhere(case, room - len(fresh), context)]
    images = np.concatenate([same, fresh[:room], rest])
    return Gallery(images=images, peers=len(images) if role == "typical" else len(same))


def _elsewhere(case: Case, count: int, context: Context) -> IntArray:
    """So many base rows, drawn, that are in no batch of the case; those of its own clients are left out altogether."""
    federation, place = context.federation, case.transition
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    own = np.concatenate([np.empty(0, dtype=np.int64), *(federation.base[client] for client in case.clients)])
    rows = np.setdiff1d(np.arange(federation.audit_start), own)
    rng = context.stream(f"leakage gallery {case.name}", run=place.run, round=place.round, client=place.client)
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))


def priors(case: Case, found: Reconstruction, context: Context) -> list[Images]:
    """Batches that somebody could offer who has not seen the gradient, its labels apart."""
    federation, place = context.federation, case.transition
    batches = [np.full((1, *case.target.input_shape), 0.5, dtype=np.float32)]
    batches += [references.inputs.mean(axis=0, keepdims=True) for references in federation.references]
    population = federation.population
    if len(population):
        mean = population.inputs.mean(axis=0)
        classes = np.unique(population.targets).tolist()
        of_class = {label: population.inputs[population.targets == label].mean(axis=0) for label in classes}
        rng = context.stream("leakage population", run=place.run, round=place.round, client=place.client)
        batches.append(mean[None])
        batches.append(np.stack([of_class.get(label, mean) for label in found.labels.tolist()]))
        batches.append(population.inputs[rng.permutation(len(population))[: len(found.inputs)]])
    return batches
