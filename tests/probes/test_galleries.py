"""Tests of `fedmem/probes/_galleries.py`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.measurement import Reading
from fedmem.estimation.statistics import clopper_pearson
from fedmem.federation.build import build
from fedmem.probes._galleries import Gallery
from fedmem.probes.leakage import Leakage
from tests.lab import Lab, federation, transition
from tests.probes.leakage_helpers import QUICK, _among
from tests.tiny import tiny


@dataclass(frozen=True)
class Noise:
    """An attack that does not look."""

    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        return [
            Reconstruction(
                inputs=rng.random((target.num_images, *target.input_shape), dtype=np.float32),
                labels=np.arange(target.num_images) % target.num_classes,
                distance=1.0,
            )
            for target, rng in zip(targets, rngs, strict=True)
        ]


def test_no_population_means_fewer_priors_and_a_smaller_gallery() -> None:
    lab = Lab(federation=federation(population=0))
    readings = Leakage(attack=QUICK).observe(lab.local(), lab)
    identified = [r for _, r in readings if r.metric == "identified"]
    assert {_among(r) for r in identified} == {
        (84, 84, "typical"),
        (50, 50, "noise"),
    }
    bare = replace(lab.federation, test=lab.federation.test.take(np.arange(0)))
    together = Leakage(attack=QUICK).observe(lab.aggregated(lab.local()), Lab(federation=bare))
    kinds = {r.labels.text("kind") for _, r in together if r.metric == "identified"}
    assert kinds == {"noise"}, "all clients are attacked, so that no real image is left"
    assert all(math.isfinite(r.value) for _, r in readings if r.metric == "margin")


def test_noise_identifies_no_kind_above_its_null_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain noise is as near to made images as it gets; among the population it would seem to identify them."""
    kinds = ("typical", "random_pattern", "out_of_distribution", "corrupted", "near_duplicate", "mislabelled")
    injections = [{"kind": kind, "per_client": 2} for kind in kinds]
    built = build(tiny(dataset={"kind": "digits"}, population=100, references=100, injections=injections))
    lab, start = Lab(federation=built), built.initial
    local = [transition(run, 2, k, start, start, len(built.rows(run, k, 2))) for run in range(2) for k in range(5)]
    probe = Leakage(attack=Noise(), victims=5)

    def identified() -> dict[str, list[Reading]]:
        found: dict[str, list[Reading]] = {}
        for _, reading in probe.observe(local, lab):
            if reading.metric == "identified" and reading.labels.get("view") == "message":
                found.setdefault(reading.labels.text("kind"), []).append(reading)
        return found

    honest = identified()
    assert honest.keys() == set(kinds)
    for kind, readings in honest.items():
        assert len(readings) == 20
        among = {f"{gallery},peers={peers}" for gallery, peers, _ in map(_among, readings)}
        peers = {"typical": "1[0-9]{3}", "random_pattern": "100"}.get(kind, "8")
        assert all(re.fullmatch(rf"(100|1\d{{3}}),peers={peers}", one) for one in among), among
        identified_by_chance = sum(reading.value for reading in readings)
        assert clopper_pearson(int(identified_by_chance), 20, level=0.99)[0] < 1 / 9
    lab.federation = replace(built, shifted=True)
    assert identified().keys() == {"random_pattern"}, "the population is not seen as any holder sees it"
    lab.federation = built
    alike = Gallery(images=built.population.inputs, peers=100)
    monkeypatch.setattr("fedmem.probes._victims.gallery", lambda *_: alike)
    assert np.mean([reading.value for reading in identified()["out_of_distribution"]]) > 0.4
