"""Whose rows samples of a generative model resemble: re-identification of clients, judged by leaving clients out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure, gain_of
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.estimation.randomisation import two_sided
from fedmem.probes._clusters import mean_interval
from fedmem.probes._measures import OUT
from fedmem.seeding import stream

_DEALS = 999
"""Deals of clients' coins behind p."""

_RESEMBLANCE = Measure(
    name="resemblance",
    title="samples that resemble a client",
    means="The share of samples whose nearest row, among equally many of each client, is one of the client.",
    is_not="It is also high for clients with common rows, so that only in − out is an effect of the client.",
    unit="share",
    range=(0.0, 1.0),
    direction="neither",
)


@dataclass(frozen=True, kw_only=True)
class ClientResemblance:
    """The share of G samples of the aggregate that are nearest to a row of client c, in runs with and without c.

    The gallery has equally many base rows of each client. Its clients share a sample whose nearest rows are equally
    near. A coin decides whether a client is in a run (`leave_out: {clients: all}`). Without an effect of a client on
    samples, the share is the same in both kinds of runs, however common its rows are.

    - `resemblance`: the mean share over clients and the runs that have them; with `statistic` = `out` over the runs
      that do not;
    - `resemblance_gain`: the mean over clients of in − out, each over its own runs, null 0. Clients with runs of one
      side alone do not count. The interval is Student's t over clients. Shares of a run sum to 1, so that no effect of
      a run raises all of them;
    - `resemblance_gain.p`: two-sided, from coins of clients that are dealt again; n counts the deals;
    - `gallery_accuracy`: the share of gallery rows whose nearest other row is of the same client. Chance is a
      little below 1 / N. At chance, nearest rows do not say whose a row is, and only copies can be found.

    An attacker needs samples and rows of each candidate. The rows of the gallery are those that clients train on, so a
    copy of a row counts as much as its style. Distances are between pixels, and not of a network that was trained to
    recognise people, which would be a stronger attacker.

    Single readings have the subject `client c`, and `coin` = `out` in runs without it. Intervals are at 95 %, those of
    means by client and by run. A model that has diverged has no reading. The summary is of the last observed round.

    Fields

    - `samples`: G.
    - `rows`: base rows of each client in the gallery, at most; all have as many as the client with the fewest.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `global`; a client that is left out has no model.

    Errors: `ComponentError` for a client without base rows. Scenarios without clients that are left out are refused.

    >>> ClientResemblance().levels
    ('global',)

    Reference: Packhäuser et al. (2022), Deep learning-based patient re-identification is able to exploit the biometric
    nature of medical chest X-ray data.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        _RESEMBLANCE,
        replace(gain_of(_RESEMBLANCE), headline=True, direction="higher is worse", digits=4),
        Measure(
            name="gallery_accuracy",
            title="gallery rows that resemble their own client",
            means="The share of rows whose nearest other row is of the same client; chance is a little below 1 / N.",
            is_not="It is about the data, and no model changes it.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
        ),
    )
    draws_samples: ClassVar[bool] = True
    compares_clients: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta")

    samples: Annotated[int, Gt(0)] = 200
    rows: Annotated[int, Gt(0)] = 50
    runs: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["global"], ...] = ("global",)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """The share of each client at each aggregate, and the accuracy of the gallery."""
        import torch

        from fedmem.training.sampling import draw_samples

        federation = context.federation
        present = federation.audit.client_in
        gallery, owner = self._gallery(context)
        accuracy = gallery_accuracy(federation.modality.distances(gallery, gallery), owner)
        readings: list[tuple[Transition, Reading]] = []
        for transition in transitions:
            if transition.run >= self.runs:
                continue
            samples = draw_samples(
                federation.model,
                transition.kept,
                federation.modality,
                federation.test if len(federation.test) else federation.population,
                self.samples,
                torch.Generator().manual_seed(int(context.stream("samples").integers(2**62))),
            )
            if (samples < 0).any() if federation.modality.tokens else not np.isfinite(samples).all():
                continue
            shares = shares_of_clients(federation.modality.distances(samples, gallery), owner, federation.num_clients)
            for client, share in enumerate(shares.tolist()):
                is_in = present is None or bool(present[transition.run, client])
                labels = Labels.of(coin=None if is_in else OUT)
                reading = Reading(metric="resemblance", value=share, subject=f"client {client}", labels=labels)
                readings.append((transition, reading))
            readings.append((transition, Reading(metric="gallery_accuracy", value=accuracy, n=len(gallery))))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means over clients and runs, in, out, and their difference, of each round; the last is the summary too."""
        rounds = sorted({one.round_number for one in measurements})
        summaries: list[Measurement] = []
        for round_number in rounds:
            of_round = [one for one in measurements if one.round_number == round_number]
            for reading in _readings(of_round, seed):
                level: Level = of_round[0].level
                one = replace(of_round[0], run=None, level=level, client=NO_CLIENT, round=round_number, reading=reading)
                summaries += [one, *([replace(one, round=None)] if round_number == rounds[-1] else [])]
        return summaries

    def _gallery(self, context: Context) -> tuple[NDArray[Any], IntArray]:
        """Equally many base rows of each client, in the form in which they are compared, and the client of each."""
        federation = context.federation
        sizes = [len(rows) for rows in federation.base]
        count = min(self.rows, *sizes)
        if not count:
            message = f"client {sizes.index(0)} has no base rows, so no sample can resemble them; leave this probe out"
            raise ComponentError("probes.client_resemblance", message)
        rng = context.stream("gallery")
        chosen = np.concatenate([rows[np.sort(rng.permutation(len(rows))[:count])] for rows in federation.base])
        rows = federation.store.take(chosen)
        owner = np.repeat(np.arange(len(sizes)), count)
        return federation.modality.comparison_rows(rows.inputs, rows.targets), owner


def shares_of_clients(distances: FloatArray, owner: IntArray, num_clients: int) -> FloatArray:
    """(N,) the share of samples that are nearest to a row of each client, from distances (G, n) and owners (n,).

    A sample is shared by all rows that are equally near to it.

    >>> shares_of_clients(np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([0, 1]), 3).tolist()
    [0.75, 0.25, 0.0]
    """
    nearest = (distances == distances.min(axis=1, keepdims=True)).astype(np.float64)
    nearest /= nearest.sum(axis=1, keepdims=True)
    return np.asarray(np.bincount(owner, weights=nearest.mean(axis=0), minlength=num_clients), dtype=np.float64)


def gallery_accuracy(distances: FloatArray, owner: IntArray) -> float:
    """The share of rows whose nearest other row has the same owner, ties shared; NaN for fewer than two rows.

    >>> gallery_accuracy(np.array([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]]), np.array([0, 0, 1])) * 3
    2.0
    """
    if len(owner) < 2:
        return math.nan
    others = np.where(np.eye(len(owner), dtype=bool), np.inf, distances)
    nearest = (others == others.min(axis=1, keepdims=True)).astype(np.float64)
    nearest /= nearest.sum(axis=1, keepdims=True)
    return float((nearest * (owner[:, None] == owner)).sum(axis=1).mean())


def _readings(measurements: Sequence[Measurement], seed: int) -> list[Reading]:
    """The readings over all models of a round."""
    sides: dict[str, list[tuple[float, str, int]]] = {"": [], OUT: []}
    accuracies: list[Reading] = []
    for one in measurements:
        reading = one.reading
        if reading.metric == "gallery_accuracy":
            accuracies.append(reading)
        else:
            sides[reading.labels.text("coin")].append((reading.value, reading.subject, one.run_number))
    readings: list[Reading] = []
    columns = {side: list(zip(*rows, strict=True)) for side, rows in sides.items() if rows}
    for side, (values, clients, runs) in columns.items():
        low, high = (float(np.clip(end, 0, 1)) for end in mean_interval(np.array(values), clients, runs))
        labels = Labels.of(statistic=side)
        value = float(np.mean(values))
        readings.append(Reading(metric="resemblance", value=value, low=low, high=high, n=len(values), labels=labels))
    if len(columns) == 2:
        shares, present = _by_client(columns)
        readings += gain_readings("resemblance_gain", shares, present, seed)
    return readings + accuracies[:1]


def _by_client(columns: Mapping[str, Sequence[Sequence[Any]]]) -> tuple[FloatArray, BoolArray]:
    """Shares (R, N), NaN where there is none, and whether the run has the client (R, N)."""
    clients = sorted({client for _, subjects, _ in columns.values() for client in subjects})
    runs = sorted({run for _, _, of_runs in columns.values() for run in of_runs})
    shares = np.full((len(runs), len(clients)), np.nan)
    present = np.zeros(shares.shape, dtype=bool)
    for side, (values, subjects, of_runs) in columns.items():
        places = np.searchsorted(runs, of_runs), np.searchsorted(clients, subjects)
        shares[places], present[places] = values, side != OUT
    return shares, present


def gain_readings(metric: str, shares: FloatArray, present: BoolArray, seed: int) -> list[Reading]:
    """The mean over clients of in − out, with its interval and p, from shares (R, N) and coins (R, N).

    >>> shares, present = np.array([[0.5, 0.1], [0.3, 0.3]]), np.array([[True, False], [False, True]])
    >>> [(one.metric, round(one.value, 3), one.n) for one in gain_readings("gain", shares, present, 0)]
    [('gain', 0.2, 4), ('gain.p', 0.57, 999)]
    """
    gains = gains_of_clients(shares, present)
    known = np.isfinite(gains)
    if not known.any():
        return []
    ends = mean_interval(gains[known], np.flatnonzero(known).tolist())
    low, high = (float(np.clip(end, -1, 1)) for end in ends)
    n = int(np.isfinite(shares[:, known]).sum())
    rng = stream(seed, "deals of clients")
    dealt = [np.nanmean(gains_of_clients(shares, deal_clients(shares, present, rng))[known]) for _ in range(_DEALS)]
    value = float(gains[known].mean())
    p = two_sided(np.array([value, *dealt]))
    return [
        Reading(metric=metric, value=value, low=low, high=high, n=n),
        Reading(metric=f"{metric}.p", value=p, n=_DEALS),
    ]


def gains_of_clients(shares: FloatArray, present: BoolArray) -> FloatArray:
    """(N,) the mean share over runs with a client minus that over runs without it; NaN without runs of a side."""
    is_read = np.isfinite(shares)
    values = np.where(is_read, shares, 0.0)
    sides = [np.sum(values * side, axis=0) for side in (present, ~present)]
    counts = [np.sum(is_read & side, axis=0) for side in (present, ~present)]
    has_both = (counts[0] > 0) & (counts[1] > 0)
    means = [total / np.maximum(count, 1) for total, count in zip(sides, counts, strict=True)]
    return np.asarray(np.where(has_both, means[0] - means[1], np.nan))


def deal_clients(shares: FloatArray, present: BoolArray, rng: np.random.Generator) -> BoolArray:
    """(R, N) coins of clients dealt again among the runs that are read, with as many in."""
    dealt = present.copy()
    for client in range(shares.shape[1]):
        read = np.flatnonzero(np.isfinite(shares[:, client]))
        dealt[read, client] = present[rng.permutation(read), client]
    return dealt
