"""Which clients' updates survive aggregation: the weight of each update in the step of the aggregate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, NO_LABELS, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.privacy.canary_directions import flatten
from fedmem.probes._clusters import mean_over_runs
from fedmem.probes._release_tests import is_weight
from fedmem.probes._survivals import atypicalities, rank_correlation, slope_within, survivals, survivals_along, thirds

ATYPICAL, REST = "atypical third", "rest"


@dataclass(frozen=True, kw_only=True)
class UpdateSurvival:
    """How much of each client's update the aggregate holds, and whether long or atypical updates survive less.

    `u_k` is what client k sent minus the model that it was sent, for the K clients of a round whose update is finite.
    `d` is the aggregate minus the model before. All weights that clients train and share form one vector in float64.
    At level `global`, from round 1 on:

    - `survival` of client k (subject `client k`): `K a_k`, where `a` minimises `|d - sum_k a_k u_k|`. Where updates are
      linearly independent, this recovers the weights of every rule that is a weighted sum. FedAvg with weights `w_k`
      gives `K w_k`, and 1 for equal weights. Krum gives K for the chosen client and 0 for the others. For other rules
      it is the weight in the weighted sum that is nearest to the step. The step may go against an update, so it may be
      negative;
    - `survival_along` of client k: `K <d, u_k> / <u_k, u_k>`. It also holds what other clients push the same way;
    - `unexplained_share`: `1 - |sum_k a_k u_k|^2 / |d|^2`, the part of the step that is no weighted sum of the updates.
      It is 0 for weighted sums. Noise, server state and rules by coordinate raise it, up to `1 - K / P` for a random
      step of P weights;
    - `survival_correlation`: Spearman's over the clients of a round, of survival with what `statistic` names, null 0.
      `norm` is the length of the update, `atypicality` is 1 minus its cosine with the mean of the others' updates;
    - `survival` with `statistic` = `atypical third` and `rest`: means over the most atypical third of the clients
      (rounded, with ties) and over the rest. `survival_gap` is their difference, null 0. With equal weights it is 0;
    - `survival_gain`, by kind, over runs: survival of a client with all of its audit examples of the kind minus that
      with none. It is the slope of survival on the share that is in, within clients, by random
      inclusion. Null 0. Its readings are those of `survival` with the labels `kind` and `in_share`.

    At level `local` it reads `update_length` and `update_atypicality` of each client.

    `summarise` gives means over runs, of each observed round and over all of them. They have Student's t interval
    (95 %) with runs as clusters, that of the gain with clients and runs. With an empty subject they are over all
    clients. The roster is taken as given.

    Undefined values are NaN with n = 0, and count in no mean:

    - `survival` of a zero update, and of an update that is a sum of others, which then have many weights. With more
      clients than weights that is every update;
    - everything of a step that is not finite, and everything of a client whose message is not finite. Such a client
      does not count in K;
    - the unexplained share of a step of length zero;
    - the correlation where survival is constant, as for equal weights, or with fewer than three clients. Survivals that
      differ by less than 1/1000 of the largest are ties, there and in `survival_gap`;
    - atypicality of a single client, of a zero update, and where the mean of the others is zero.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local`, `global` or both.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs. It reads messages
    of single clients, which a server with secure aggregation does not have.

    >>> UpdateSurvival().levels
    ('local', 'global')

    Reference: Blanchard, El Mhamdi, Guerraoui and Stainer (2017), on rules that are no weighted sum.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="survival",
            title="survival of an update",
            means="The weight of a client's update in the weighted sum of updates that is nearest to the step, times "
            "the number of clients. Equal weights give 1.",
            is_not="It is about a step, and not about what the model remembers of the client. For rules that are no "
            "weighted sum it describes the part that is not in `unexplained_share`.",
            direction="neither",
            terms=(("survival", "weight of an update in the step of the aggregate, times the number of clients"),),
        ),
        Measure(
            name="survival_along",
            title="step along an update",
            means="How far the aggregate moves along a client's update, as a multiple of it, times the number of "
            "clients.",
            is_not="It also holds what other clients push the same way, so that it is above 1 for common updates.",
            direction="neither",
        ),
        Measure(
            name="survival_gap",
            title="survival of atypical minus other updates",
            means="Mean survival of the most atypical third of the updates minus that of the rest; equal weights "
            "give 0.",
            is_not="It is no effect of atypicality alone: atypical updates may also be short, or of small clients.",
            null=0.0,
            direction="neither",
            headline=True,
        ),
        Measure(
            name="survival_correlation",
            title="rank correlation of survival",
            means="Spearman's correlation within rounds of survival with the norm or the atypicality of the update.",
            is_not="Equal weights have none, which is no correlation of 0.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            headline=True,
        ),
        Measure(
            name="survival_gain",
            title="survival, in − out",
            means="Survival of the update of a client with all of its examples of a kind minus that with none of them.",
            is_not="It is no memorisation: an update may survive without its examples.",
            null=0.0,
            direction="neither",
        ),
        Measure(
            name="unexplained_share",
            title="step that no updates explain",
            means="The share of the squared length of the step that is no weighted sum of this round's updates.",
            is_not="It is not only noise: momentum and rules by coordinate raise it as well.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
            headline=True,
        ),
        Measure(
            name="update_length",
            title="norm of the update",
            means="The L2 norm of the update that a client sends.",
            is_not="Clients with more steps have longer updates, whatever they hold.",
            range=(0.0, math.inf),
            direction="neither",
        ),
        Measure(
            name="update_atypicality",
            title="atypicality of the update",
            means="1 minus the cosine of a client's update with the mean of the others' updates.",
            is_not="It depends on who else is in the round.",
            range=(0.0, 2.0),
            direction="neither",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("in_share", "number", "the share of the client's audit examples of a kind that are in"),
    )
    counts_groups: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta", "one_of")
    densities: ClassVar[bool] = True

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Literal["local", "global"], ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Norm and atypicality of each client, or the survival of each client of each aggregate."""
        if transitions[0].round == 0:
            return ()
        by_run: dict[int, list[Transition]] = {}
        for transition in transitions:
            by_run.setdefault(transition.run, []).append(transition)
        if transitions[0].level == "local":
            return [pair for of_run in by_run.values() for pair in _of_cohort(of_run, context)]
        # with personal layers an aggregate is shown once for each owner
        return [pair for of_run in by_run.values() for pair in _of_aggregate(of_run[0], context)]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means over runs, and gains by kind, of each round and over all of them."""
        plain = [row for row in measurements if row.reading.labels.get("kind") is None]
        by_kind = [row for row in measurements if row.reading.labels.get("kind") is not None]
        return [*_means(plain), *_gains(by_kind)]


# --- what is read -----------------------------------------------------------------------------------------------------


def _updates(senders: Sequence[Transition], names: Sequence[str]) -> FloatArray:
    """(K, P) what each client sent minus what it was sent."""
    return np.stack([_change(sender, names) for sender in senders])


def _change(transition: Transition, names: Sequence[str]) -> FloatArray:
    """(P,) what was sent minus the model before, in float64."""
    after, before = (flatten({name: model[name] for name in names}) for model in (transition.sent, transition.before))
    with np.errstate(invalid="ignore"):
        return np.asarray(after - before)


def _shared_names(transition: Transition, context: Context) -> list[str]:
    """The weights that clients train and share."""
    personal = context.federation.personal_names(context.client)
    return [name for name, value in transition.before.items() if is_weight(name, value) and name not in personal]


def _reading(metric: str, value: float, subject: str = "", n: int = 1, labels: Labels = NO_LABELS) -> Reading:
    value = float(value)
    return Reading(metric=metric, value=value, n=0 if math.isnan(value) else n, subject=subject, labels=labels)


def _of_cohort(local: Sequence[Transition], context: Context) -> Iterator[tuple[Transition, Reading]]:
    """Norm and atypicality of the updates of one run."""
    updates = _updates(local, _shared_names(local[0], context))
    norms = np.linalg.norm(updates, axis=1)
    values = {
        "update_length": np.where(np.isfinite(norms), norms, np.nan),
        "update_atypicality": atypicalities(updates),
    }
    for k, transition in enumerate(local):
        for metric, of_clients in values.items():
            yield transition, _reading(metric, of_clients[k], f"client {transition.client}")


def _of_aggregate(aggregate: Transition, context: Context) -> Iterator[tuple[Transition, Reading]]:
    """All readings of one aggregate."""
    senders = context.senders(aggregate)
    if not senders:
        return
    about = aggregate if aggregate.client == NO_CLIENT else replace(aggregate, client=NO_CLIENT)
    names = _shared_names(aggregate, context)
    step, updates = _change(aggregate, names), _updates(senders, names)
    own, unexplained = survivals(step, updates)
    along = survivals_along(step, updates)
    norms, atypicality = np.linalg.norm(updates, axis=1), atypicalities(updates)
    yield about, _reading("unexplained_share", unexplained, n=len(senders))
    for name, values in (("norm", norms), ("atypicality", atypicality)):
        correlation, n = rank_correlation(own, values)
        yield about, _reading("survival_correlation", correlation, n=n, labels=Labels.of(statistic=name))
    of_atypical, of_rest, n = thirds(own, atypicality)
    yield about, _reading("survival", of_atypical, n=n, labels=Labels.of(statistic=ATYPICAL))
    yield about, _reading("survival", of_rest, n=n, labels=Labels.of(statistic=REST))
    yield about, _reading("survival_gap", of_atypical - of_rest, n=n)
    for k, sender in enumerate(senders):
        subject = f"client {sender.client}"
        yield about, _reading("survival", own[k], subject)
        yield about, _reading("survival_along", along[k], subject)
        for kind, share in _shares_in(sender, context).items():
            yield about, _reading("survival", own[k], subject, labels=Labels.of(kind=kind, in_share=share))


def _shares_in(sender: Transition, context: Context) -> Mapping[str, float]:
    """The share of the audit examples of a client that are in, by kind, among those that it may train on now."""
    audit = context.federation.audit
    mine = audit.holds([sender.client])[0] & audit.is_active(sender.round)
    counted = {kind: mine & (audit.kind == kind) for kind in audit.kinds}
    return {kind: float(audit.is_in[sender.run, rows].mean()) for kind, rows in counted.items() if rows.any()}


# --- what follows -----------------------------------------------------------------------------------------------------

_BOUNDS = {measure.name: measure.range for measure in UpdateSurvival.measures}


def _means(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """Means over runs of each round and over all rounds, by client and over clients."""
    groups: dict[tuple[int | None, Level, str, str, Labels], list[Measurement]] = {}
    for row in rows:
        reading = row.reading
        for round_number in (row.round, None):
            for subject in dict.fromkeys((reading.subject, "")):
                groups.setdefault((round_number, row.level, reading.metric, subject, reading.labels), []).append(row)
    for (round_number, _, metric, subject, labels), members in groups.items():
        mean = replace(mean_over_runs(members, metric, subject, _BOUNDS[metric]), labels=labels)
        yield replace(members[0], run=None, client=NO_CLIENT, round=round_number, reading=mean)


def _gains(rows: Sequence[Measurement]) -> Iterator[Measurement]:
    """The gain of each kind, of each round and over all rounds."""
    groups: dict[tuple[int | None, str], list[Measurement]] = {}
    for row in rows:
        if math.isfinite(row.reading.value):
            for round_number in (row.round, None):
                groups.setdefault((round_number, row.reading.labels.text("kind")), []).append(row)
    for (round_number, kind), members in groups.items():
        clients = [row.reading.subject for row in members]
        shares = np.array([row.reading.labels.number("in_share") for row in members])
        values = np.array([row.reading.value for row in members])
        gain, low, high = slope_within(shares, values, clients, [row.run_number for row in members])
        n = 0 if math.isnan(gain) else len(members)
        reading = Reading(metric="survival_gain", value=gain, low=low, high=high, n=n, subject=kind)
        yield replace(members[0], run=None, client=NO_CLIENT, round=round_number, reading=reading)
