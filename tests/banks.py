"""Banks and views with planted effects, for the tests of everything that reads evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.estimator import Models, SetEvidence, View
from fedmem.contracts.evidence import Bank, Evidence, Participation, ReferenceEvidence, SignalEvidence
from fedmem.contracts.measurement import Level
from fedmem.contracts.signal import quantities_of
from fedmem.estimation.randomisation import permute_coins
from fedmem.scenario.catalogue import kinds, load

ROLES = {"random_pattern": "canary", "mislabelled": "atypical", "typical": "typical"}


def coins(runs: int, m: int, rng: np.random.Generator) -> BoolArray:
    """(R, m), each column half ones."""
    half = np.arange(runs) < runs // 2
    return np.stack([rng.permutation(half) for _ in range(m)], axis=1)


def make_audit(kind: Sequence[str], owner: Sequence[int], is_in: BoolArray) -> AuditSet:
    m = len(kind)
    return AuditSet(
        examples=Examples(
            inputs=np.zeros((m, 1), np.float32), targets=np.zeros(m, np.int64), ids=-1 - np.arange(m, dtype=np.int64)
        ),
        kind=np.array(kind, dtype=np.str_),
        role=np.array([ROLES.get(name, "canary") for name in kind], dtype=np.str_),
        owner=np.array(owner, dtype=np.int32),
        copies=np.ones(m, np.int32),
        is_in=is_in,
    )


def signals(margin: FloatArray, is_in: BoolArray, population: FloatArray | None = None) -> Signals:
    """What an attack sees, of one model per run; `population` (R, n) are losses."""
    if population is None:
        return Signals(margin=margin, is_in=is_in)
    model = np.zeros(margin.shape[1], np.int64)
    return Signals(margin=margin, is_in=is_in, population=population[None], model=model)


def make_view(
    margin: FloatArray,
    is_in: BoolArray,
    *,
    kind: Sequence[str] | None = None,
    correct: FloatArray | None = None,
    rank: FloatArray | None = None,
    references: int = 0,
    draws: int = 50,
    place: str = "",
    level: Level = "global",
    round_number: int | None = 1,
    test: FloatArray | None = None,
    client_in: BoolArray | None = None,
    logits: FloatArray | None = None,
) -> View:
    """A view of one model per run, from margins (R, m) or (R, Q, m), and margins (R, n) and logits (R, n', C) of tests.

    Logits are centred.
    """
    cube = margin if margin.ndim == 3 else margin[:, None]
    audit = make_audit(kind or ["random_pattern"] * cube.shape[2], [0] * cube.shape[2], is_in)
    audit = replace(audit, client_in=client_in)
    models = Models(
        runs=len(cube), round=np.full(1, 9), client=np.full(1, -1), of=np.zeros((1, cube.shape[2]), np.int64)
    )
    sets = {"audit": margin if margin.ndim == 2 else margin[:, 0]} | ({} if test is None else {"test": test})
    hit = np.where(np.isnan(cube), np.nan, cube > 0) if correct is None else correct.reshape(cube.shape)
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp(0, -cube)
    return View(
        round=round_number,
        level=level,
        place=place,
        audit=audit,
        loss=loss,
        margin=cube,
        correct=hit,
        rank=np.full(cube.shape, np.nan) if rank is None else rank.reshape(cube.shape),
        references=np.full(cube.shape[2], references),
        redeals=permute_coins(audit, draws, np.random.default_rng(7)),
        sets={
            name: _set(name, values, models, level, logits if name == "test" else None) for name, values in sets.items()
        },
    )


def _set(name: str, margin: FloatArray, models: Models, level: Level, logits: FloatArray | None = None) -> SetEvidence:
    """The only models of a view on a whole set; labels 0, 1, 2, 0, …"""
    runs = len(margin)
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp(0, -margin)
    block = Evidence(
        round=9,
        level=level,
        set=name,
        run=np.arange(runs, dtype=np.int32),
        client=np.full(runs, -1, np.int32),
        loss=loss,
        margin=margin,
        correct=margin > 0,
    )
    centred = np.zeros((runs, 0, 0)) if logits is None else logits - logits.mean(axis=2, keepdims=True)
    signals = tuple(
        SignalEvidence(
            round=9,
            level=level,
            name=f"logit.{label}",
            run=block.run,
            client=block.client,
            values=centred[..., label],
            set=name,
            rows=np.arange(centred.shape[1]),
        )
        for label in range(centred.shape[2])
    )
    return SetEvidence(models=models, blocks=(block,), targets=np.arange(margin.shape[1]) % 3, signals=signals)


def make_bank(
    *,
    runs: int = 8,
    clients: int = 6,
    cohort: int = 3,
    rounds: Sequence[int] = (0, 1, 2, 3),
    per_client: int = 2,
    kinds: Sequence[str] = tuple(ROLES),
    local: Mapping[str, float] | float = 2.0,
    whole: Mapping[str, float] | float = 1.0,
    noise: float = 1.0,
    spread: float = 0.5,
    references: int = 100,
    levels: Sequence[Level] = ("local", "global"),
    roster: str = "shared",
    seed: int = 0,
    held_out: int = 24,
) -> Bank:
    """A bank whose margins rise by `local` at the holder and by `whole` at the server where an example is in.

    Example j helps test example j modulo `held_out` as much as itself; as many population examples are helped by none.
    """
    rng = np.random.default_rng(seed)
    rest = np.random.default_rng([seed, 1])
    kind = [name for name in kinds for _ in range(clients * per_client)]
    owner = [client for _ in kinds for client in range(clients) for _ in range(per_client)]
    m = len(kind)
    audit = make_audit(kind, owner, coins(runs, m, rng))
    base = spread * rng.normal(size=m)
    canaries = np.flatnonzero(audit.role == "canary")

    def effect(of: Mapping[str, float] | float) -> FloatArray:
        return np.array([of if isinstance(of, int | float) else of.get(name, 0.0) for name in kind], np.float64)

    evidence, ranks, participation = [], [], []
    for round_number in rounds:
        members = np.sort(rng.choice(clients, cohort, replace=False)).astype(np.int32)
        for level in levels:
            if level == "local" and round_number == 0:
                continue
            places = members if level == "local" else np.array([-1], np.int32)
            run = np.repeat(np.arange(runs, dtype=np.int32), len(places))
            client = np.tile(places, runs)
            own = (client[:, None] == audit.owner) if level == "local" else np.ones((len(run), m), bool)
            shift = effect(local if level == "local" else whole) * audit.is_in[run] * own * (round_number > 0)
            margin = base + shift + noise * rng.normal(size=(len(run), m))
            order = rng.permutation(len(run))  # evidence may come in any order
            helped = np.zeros((len(run), held_out))
            for j in range(m if held_out else 0):
                helped[:, j % held_out] += shift[:, j]
            sets = {
                "audit": margin,
                "test": helped - 1.0 + 0.5 * noise * rest.normal(size=helped.shape),
                "population": spread * rest.normal(size=held_out) + noise * rest.normal(size=helped.shape),
            }
            evidence += [
                Evidence(
                    round=round_number,
                    level=level,
                    set=name,
                    run=run[order],
                    client=client[order],
                    loss=np.logaddexp(0, -values)[order],
                    margin=values[order],
                    correct=(values > 0)[order],
                )
                for name, values in sets.items()
                if held_out or name == "audit"
            ]
            # Without an effect the share of references below is uniform on (0, 1).
            below = np.exp(-shift[:, canaries]) * rng.random((len(run), len(canaries)))
            order = rng.permutation(len(run))
            drawn = np.hypot(spread, noise) * rest.normal(size=(len(run), references))
            places = np.round(np.linspace(0, references - 1, 256)).astype(int)
            quantiles = np.sort(np.logaddexp(0, -drawn), axis=1)[:, None, places].astype(np.float32)
            ranks.append(
                ReferenceEvidence(
                    round=round_number,
                    level=level,
                    family="random_pattern",
                    run=run[order],
                    client=client[order],
                    subjects=canaries,
                    count=references,
                    less=np.floor(below * (references + 1)).astype(np.int32)[order],
                    ties=np.zeros((len(run), len(canaries)), np.int32),
                    labels=np.array([0]),
                    quantiles=quantiles[order],
                )
            )
        participation += [
            Participation(run=r, round=round_number, client=int(c), num_examples=1, failed=False)
            for r in range(runs)
            for c in members
            if round_number > 0
        ]
    return Bank(
        audit=audit,
        evidence=tuple(evidence),
        references=tuple(ranks),
        participation=tuple(participation),
        seed=seed,
        roster=roster,
    )


def with_signals(bank: Bank, names: Sequence[str]) -> Bank:
    """The bank with these quantities of signals: the loss, or exp(−loss) where training raises them, or for shares."""
    shares = {
        measure.name
        for kind in kinds("signal")
        for measure in quantities_of(load("signal", kind))
        if measure.trained_on == "higher" or measure.range == (0.0, 1.0)
    }
    blocks = [
        SignalEvidence(
            round=part.round,
            level=part.level,
            name=name,
            run=part.run,
            client=part.client,
            values=np.exp(-part.loss) if name in shares else part.loss,
        )
        for part in bank.evidence
        if part.set == "audit"
        for name in names
    ]
    return replace(bank, signals=tuple(blocks))
