"""Clients whose rows samples of a generative model resemble, judged by leaving clients out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.data import DatasetLoader
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure, gain_of
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.estimation.randomisation import two_sided
from fedmem.probes._clusters import interval_around, mean_interval
from fedmem.probes._identities import (
    euclidean,
    fit_verifier,
    groups_of,
    held_out_accuracies,
    nearest_same,
    random_accuracy,
    require_strangers,
    vectors_of,
)
from fedmem.probes._measures import OUT
from fedmem.seeding import stream

VERIFIER = "verifier"
"""The label `matching` of what a verifier of identities matches."""

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
    """The share of G samples of a model that are nearest to a row of client c, in runs with and without c.

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

    At level `global`, samples are of the aggregate. At level `local`, they are of the model that c returns in runs with
    c. In runs without c, they are of the other clients' models, of which the mean is taken. So the gain at a client
    also contains that the others are trained on their own rows. Its interval is by client and by run. It has no p,
    since a client that is out has no model.

    `matching` says what is near. By default, distances are between pixels. With `verifier`, they are those of a
    verifier trained on `identities`, people whom no client has. See `fedmem.probes._identities`. It is judged by:

    - `verifier_accuracy`: how often the nearest other row has the same identity, among identities that a verifier
      did not see. With `statistic` = `pixels`, it is the same for pixels, as the control without training. With
      `chance`, it is that of a random row. A verifier at chance recognises nobody, and then a gain near 0 says nothing.

    The attacker is granted samples, and rows of each candidate. The rows of the gallery are those that clients train
    on, so a copy of a row counts as much as its style. With a verifier, the attacker has images of other people too.

    Single readings have the subject `client c`, and `coin` = `out` in runs without it. Intervals are at 95 %, those of
    means by client and by run. A model that has diverged has no reading. The summary is of the last observed round.

    Fields

    - `samples`: G.
    - `rows`: base rows of each client in the gallery, at most; all have as many as the client with the fewest.
    - `runs`: how many runs are looked at, from run 0 on.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local`, `global` or both.
    - `identities`: a data set of images whose owners are no clients, in the form of the federation's; null for no
      verifier. Four identities at least.

    Errors: `ComponentError` for a client without base rows, for identities without owners or of another shape, and for
    identities whose rows clients have. Scenarios without clients that are left out are refused.

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
        Measure(
            name="verifier_accuracy",
            title="rows of strangers that are matched with their own identity",
            means="The share of rows of identities that a verifier did not see whose nearest other row is of the same.",
            is_not="It is about a verifier, and about no model of the federation.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
            headline=True,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("matching", "text", "how samples are matched with rows", ((VERIFIER, "by a verifier of identities"),)),
    )
    draws_samples: ClassVar[bool] = True
    compares_clients: ClassVar[bool] = True
    needs_base_rows: ClassVar[bool] = True
    densities: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta", "one_of")

    samples: Annotated[int, Gt(0)] = 200
    rows: Annotated[int, Gt(0)] = 50
    runs: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["local", "global"], ...] = ("global",)
    identities: Annotated[DatasetLoader | None, "identity_neutral"] = None

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """The share of each client at each model, and the accuracy of the gallery and of the verifier."""
        import torch

        from fedmem.training.sampling import draw_samples

        federation = context.federation
        gallery, owner = self._gallery(context)
        matchings, of_verifier = self._matchings(context, gallery)
        accuracies = [
            Reading(
                metric="gallery_accuracy",
                value=gallery_accuracy(distances(gallery), owner),
                n=len(gallery),
                labels=Labels.of(matching=matching),
            )
            for matching, distances in matchings.items()
        ]
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
            for matching, distances in matchings.items():
                shares = shares_of_clients(distances(samples), owner, federation.num_clients)
                readings += [(transition, one) for one in _of_model(shares, transition, context, matching)]
            readings += [(transition, one) for one in (*accuracies, *of_verifier)]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means over clients and runs, in, out, and their difference, of each round; the last is the summary too."""
        rounds = sorted({one.round_number for one in measurements})
        summaries: list[Measurement] = []
        for round_number in rounds:
            of_round = [one for one in measurements if one.round_number == round_number]
            for level in dict.fromkeys(one.level for one in of_round):
                of_level = [one for one in of_round if one.level == level]
                for matching in sorted({one.reading.labels.text("matching") for one in of_level}):
                    members = [one for one in of_level if one.reading.labels.text("matching") == matching]
                    for reading in _readings(members, seed, level):
                        labels = reading.labels.plus(matching=matching or None)
                        one = replace(members[0], run=None, client=NO_CLIENT, round=round_number)
                        one = replace(one, reading=replace(reading, labels=labels))
                        summaries += [one, *([replace(one, round=None)] if round_number == rounds[-1] else [])]
        return summaries

    def _matchings(
        self, context: Context, gallery: NDArray[Any]
    ) -> tuple[Mapping[str, Callable[[NDArray[Any]], FloatArray]], list[Reading]]:
        """Distances of samples from the gallery, by the way in which they are matched, and readings of the verifier."""
        modality = context.federation.modality
        matchings: dict[str, Callable[[NDArray[Any]], FloatArray]] = {
            "": lambda samples: modality.distances(samples, gallery)
        }
        if self.identities is None:
            return matchings, []
        place = "probes.client_resemblance.identities"
        data = self.identities.load(context.stream("identities"))
        if data.natural is None:
            raise ComponentError(place, "this data set knows no owners; choose one that does, such as digits")
        if data.modality != modality or data.train.inputs.shape[1:] != context.federation.store.inputs.shape[1:]:
            raise ComponentError(place, "its images differ in form from those of the federation; use the same fields")
        rows = vectors_of(modality, modality.comparison_rows(data.train.inputs, data.train.targets), place)
        known = vectors_of(modality, gallery, place)
        require_strangers(rows, data.natural, known, place)
        classes = np.asarray(data.columns.get("class", data.train.labels))
        trained, untrained = held_out_accuracies(rows, data.natural, classes)
        matrix = fit_verifier(rows, groups_of(data.natural, classes))
        matchings[VERIFIER] = lambda samples: euclidean(vectors_of(modality, samples, place) @ matrix, known @ matrix)
        half = np.unique(data.natural)[::2]
        readings = [_of_identities(trained, ""), _of_identities(untrained, "pixels")]
        baseline = random_accuracy(data.natural[np.isin(data.natural, half)])
        labels = Labels.of(statistic="chance", matching=VERIFIER)
        return matchings, [*readings, replace(readings[0], value=baseline, low=math.nan, high=math.nan, labels=labels)]

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


def _of_model(shares: FloatArray, transition: Transition, context: Context, matching: str) -> list[Reading]:
    """The shares of the clients that are read at a model: all at the aggregate, else its own and those that are out."""
    present = context.federation.audit.client_in
    readings: list[Reading] = []
    for client, share in enumerate(shares.tolist()):
        is_in = present is None or bool(present[transition.run, client])
        if transition.level == "global" or client == transition.client or not is_in:
            labels = Labels.of(coin=None if is_in else OUT, matching=matching)
            readings.append(Reading(metric="resemblance", value=share, subject=f"client {client}", labels=labels))
    return readings


def _of_identities(accuracy: FloatArray, statistic: str) -> Reading:
    """The mean over identities, and its interval over them."""
    low, high = (float(np.clip(end, 0, 1)) for end in mean_interval(accuracy, np.arange(len(accuracy)).tolist()))
    labels = Labels.of(statistic=statistic, matching=VERIFIER)
    value = float(accuracy.mean())
    return Reading(metric="verifier_accuracy", value=value, low=low, high=high, n=len(accuracy), labels=labels)


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
    return float(nearest_same(distances, owner).mean())


def _readings(measurements: Sequence[Measurement], seed: int, level: Level) -> list[Reading]:
    """The readings over all models of a round, a level and a matching."""
    sides: dict[str, dict[tuple[str, int], list[float]]] = {"": {}, OUT: {}}
    facts: dict[tuple[str, Labels], Reading] = {}
    for one in measurements:
        reading = one.reading
        if reading.metric != "resemblance":
            facts.setdefault((reading.metric, reading.labels), reading)
        else:
            values = sides[reading.labels.text("coin")].setdefault((reading.subject, one.run_number), [])
            values.append(reading.value)
    columns = {
        side: ([float(np.mean(each)) for each in rows.values()], *map(list, zip(*rows, strict=True)))
        for side, rows in sides.items()
        if rows
    }
    readings: list[Reading] = []
    for side, (means, clients, runs) in columns.items():
        low, high = (float(np.clip(end, 0, 1)) for end in mean_interval(np.array(means), clients, runs))
        labels = Labels.of(statistic=side)
        value = float(np.mean(means))
        readings.append(Reading(metric="resemblance", value=value, low=low, high=high, n=len(means), labels=labels))
    if len(columns) == 2:
        shares, present = _by_client(columns)
        readings += gain_readings("resemblance_gain", shares, present, seed if level == "global" else None)
    return [*readings, *facts.values()]


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


def gain_readings(metric: str, shares: FloatArray, present: BoolArray, seed: int | None) -> list[Reading]:
    """The mean over clients of in − out, with its interval and p, from shares (R, N) and coins (R, N).

    Without a seed, shares of a run need not sum to 1. Then the interval is by client and by run, and there is no p.

    >>> shares, present = np.array([[0.5, 0.1], [0.3, 0.3]]), np.array([[True, False], [False, True]])
    >>> [(one.metric, round(one.value, 3), one.n) for one in gain_readings("gain", shares, present, 0)]
    [('gain', 0.2, 4), ('gain.p', 0.57, 999)]
    """
    gains = gains_of_clients(shares, present)
    known = np.isfinite(gains)
    if not known.any():
        return []
    ends = mean_interval(gains[known], np.flatnonzero(known).tolist()) if seed is not None else None
    low, high = (float(np.clip(end, -1, 1)) for end in ends or _two_way(shares[:, known], present[:, known]))
    n = int(np.isfinite(shares[:, known]).sum())
    if seed is None:
        return [Reading(metric=metric, value=float(gains[known].mean()), low=low, high=high, n=n)]
    rng = stream(seed, "deals of clients")
    dealt = [np.nanmean(gains_of_clients(shares, deal_clients(shares, present, rng))[known]) for _ in range(_DEALS)]
    value = float(gains[known].mean())
    p = two_sided(np.array([value, *dealt]))
    return [
        Reading(metric=metric, value=value, low=low, high=high, n=n),
        Reading(metric=f"{metric}.p", value=p, n=_DEALS),
    ]


def _two_way(shares: FloatArray, present: BoolArray) -> tuple[float, float]:
    """The interval of the mean gain by client and by run, with each value measured from the mean of its side."""
    gains, is_read = gains_of_clients(shares, present), np.isfinite(shares)
    residuals = np.zeros(shares.shape)
    for side, sign in ((present, 1.0), (~present, -1.0)):
        chosen = side & is_read
        count = chosen.sum(axis=0)
        center = np.where(chosen, shares, 0.0).sum(axis=0) / count
        half = sign * (gains - gains.mean()) / 2
        residuals += np.where(chosen, sign * (shares - center + half) / count / len(gains), 0.0)
    runs, clients = np.nonzero(is_read)
    return interval_around(float(gains.mean()), residuals[is_read], [clients.tolist(), runs.tolist()], 0.95)


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
