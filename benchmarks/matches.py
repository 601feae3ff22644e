"""What is measured against what, and the figures to reach, workload by workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import rows
from benchmarks.contest import Contender
from benchmarks.rows import FLOWER, OTHERS, Row, ours
from benchmarks.workloads import Workload, bank, characters, convolutions, perceptron

SERVERS = ("messages", "rule")


@dataclass(frozen=True, kw_only=True)
class Match:
    """Contenders that are run in turn on one plan, and the rows that follow. Those in `agreeing` end alike."""

    title: str
    workload: Workload | None
    contenders: Sequence[Contender]
    figures: Sequence[Row]
    repetitions: int | None = None


def matches(*, peers: bool, quick: bool) -> list[Match]:
    """All of them, in order; without peers and with less work in the quick mode."""
    return [
        _small(peers=peers),
        _large("W2", convolutions(), 1.9, peers=peers),
        _large("W3", characters(), 2.5, peers=peers),
        _bank(runs=8 if quick else 64),
        _probes(),
        _signals(),
        _many_clients(),
        _attacks(peers=peers),
        _secrets(),
        _evidence(quick=quick),
        _adapters(),
        _compare(settings=2 if quick else 8, seeds=2 if quick else 5),
    ]


def _small(*, peers: bool) -> Match:
    workload = perceptron()
    targets = {"messages": 60.0, "rule": 100.0}
    figures = []
    for server in SERVERS:
        own, once = ours("round", "W1", server).name, ours("whole", "W1", server).name
        figures += [
            _row("W1", f"one run, {server}: Flower's simulation", rows.against(FLOWER, own), targets[server]),
            _row("W1", f"one run, {server}: the same, whole processes", rows.whole(FLOWER, once), 6.0),
            _row("W1", f"one run, {server}: the best of the others", rows.against(OTHERS, own)),
            _row("W1", f"one run, {server}: the plain loop", rows.against(OTHERS[:1], own)),
        ]
    own_entries = [ours(measure, "W1", server) for server in SERVERS for measure in ("round", "whole")]
    return Match(
        title="W1",
        workload=workload,
        contenders=[*own_entries, *rows.rivals(workload.rounds, small=True, peers=peers)],
        figures=figures,
    )


def _large(name: str, workload: Workload, target: float, *, peers: bool) -> Match:
    figures = []
    for server in SERVERS:
        own = ours("round", name, server).name
        figures += [
            _row(name, f"one run, {server}: Flower's simulation", rows.against(FLOWER, own), target),
            _row(name, f"one run, {server}: the best of the others", rows.against(OTHERS, own), 1.0),
        ]
    contenders = [ours("round", name, server) for server in SERVERS]
    contenders += rows.rivals(workload.rounds, small=False, peers=peers)
    if name == "W2":
        kernel = rows.other("convolution alone", "kernel", workers=2)
        contenders.append(kernel)
        rate = rows.achieved(ours("round", name, "rule").name, workload.gigaflops, kernel.name)
        figures.append(
            Row(workload=name, text="share of the rate of its convolution", value=rate, target=0.45, unit="share")
        )
    return Match(title=name, workload=workload, contenders=contenders, figures=figures)


def _bank(*, runs: int) -> Match:
    workload = bank()
    plain = rows.other("plain loop", "plain", rounds=workload.rounds, runs=runs)
    flower = rows.other("Flower, 2 actors", "flower_sim", rounds=workload.rounds, workers=2)
    targets = {"messages": (4.0, 150.0), "rule": (10.0, 400.0)}
    figures, contenders = [], [plain, flower]
    for server in SERVERS:
        own, once = ours("bank", "W4", server), ours("whole", "W4", server)
        contenders += [own, once]
        figures += [
            _row("W4", f"64 runs, {server}: 64 plain loops", rows.quotient(plain.name, own.name), targets[server][0]),
            _row(
                "W4",
                f"64 runs, {server}: 64 simulations of Flower, whole processes",
                rows.whole([flower.name], once.name, times=64),
                targets[server][1],
            ),
            _row("W4", f"64 runs, {server}: the same, rounds alone", rows.quotient(flower.name, own.name)),
        ]
    share = ours("outside", "W4", "rule")
    contenders.append(share)
    figures.append(
        Row(
            workload="W4",
            text="share of time outside training and evidence, rule",
            value=rows.itself(share.name),
            target=0.3,
            better="below",
            unit="share",
        )
    )
    return Match(title="W4", workload=workload, contenders=contenders, figures=figures)


def _probes() -> Match:
    on, off = (
        [ours("watching", f"bank of W1{observed}", server) for server in SERVERS] for observed in (", observed", "")
    )
    figures = [
        Row(
            workload="probes",
            text=f"64 runs of W1, {server}: observed every 5 rounds over not observed",
            value=rows.quotient(with_probes.name, without.name),
            target=1.5,
            better="below",
        )
        for server, with_probes, without in zip(SERVERS, on, off, strict=True)
    ]
    return Match(
        title="probes",
        workload=None,
        contenders=[entry for pair in zip(on, off, strict=True) for entry in pair],
        figures=figures,
    )


def _signals() -> Match:
    """Gradient norms and EL2N at every observed round: relative to observing alone, and to what `fedmem check` says."""
    plain, observed, read = (
        ours("watching", f"16 runs of W1{how}", "messages") for how in ("", ", observed", ", signals")
    )
    price = ours("price", "16 runs of W1, signals", "messages")
    figures = [
        Row(
            workload="signals",
            text="16 runs of W1: grad_norm and el2n at every observed round over observed alone",
            value=rows.quotient(read.name, observed.name),
            target=1.5,
            better="below",
        ),
        Row(
            workload="signals",
            text="16 runs of W1: what they add to training over what fedmem check says",
            value=rows.over_price(read.name, observed.name, plain.name, price.name),
            target=1.2,
            better="below",
        ),
    ]
    return Match(title="signals", workload=None, contenders=[plain, observed, read, price], figures=figures)


def _many_clients() -> Match:
    many, few = (ours("round", f"{size} clients", "messages") for size in ("many", "few"))
    figure = Row(
        workload="clients",
        text="a round with 100 000 clients over one with 100, cohorts of 10",
        value=rows.quotient(many.name, few.name),
        target=1.2,
        better="below",
    )
    return Match(title="clients", workload=None, contenders=[many, few], figures=[figure])


def _attacks(*, peers: bool) -> Match:
    """Reconstructions an hour: the plain loop and the peer have one thread and one victim at a time."""
    contenders, figures = [], []
    for network, over_plain, over_peer in (("mlp", 5.0, None), ("lenet", 5.0, 5.0), ("cnn", 1.7, 2.0)):
        own, plain = (
            Contender(
                name=f"{who} {network}", module="benchmarks.inversion", arguments=(who, network), wants_plan=False
            )
            for who in ("ours", "plain")
        )
        peer = Contender(
            name=f"breaching {network}",
            module="benchmarks.peers.breaching",
            arguments=(network,),
            peer="breaching",
            essential=False,
            wants_plan=False,
        )
        contenders += [own, plain, *([peer] if peers else [])]
        text = f"64 victims of one gradient each, {network}"
        figures += [
            _row(
                "attacks",
                f"{text}: one after the other in a plain loop",
                rows.quotient(plain.name, own.name),
                over_plain,
            ),
            _row("attacks", f"{text}: one after the other by breaching", rows.quotient(peer.name, own.name), over_peer),
        ]
    return Match(title="attacks", workload=None, contenders=contenders, figures=figures)


def _compare(*, settings: int, seeds: int) -> Match:
    together, apart = (
        Contender(
            name=f"{way}, {settings} settings x {seeds} seeds",
            module="benchmarks.cells",
            arguments=(way, "--settings", str(settings), "--seeds", str(seeds)),
            wants_plan=False,
        )
        for way in ("together", "apart")
    )
    figure = Row(
        workload="compare",
        text=f"{settings} strategies x {seeds} seeds of the quickstart, R = 16: compared over run one by one",
        value=rows.quotient(together.name, apart.name),
        target=0.75,
        better="below",
    )
    return Match(title="compare", workload=None, contenders=[together, apart], figures=[figure], repetitions=1)


def _secrets() -> Match:
    """The exposure of a secret: both ways read the same network, and must rank it alike."""
    tree, sequences = (
        Contender(name=name, module="benchmarks.exposure", arguments=(way,), wants_plan=False)
        for name, way in (("tree of prefixes", "tree"), ("candidate by candidate", "sequences"))
    )
    figure = _row(
        "secrets",
        "exposure of one secret over 10^6 candidates: candidate by candidate in equal batches",
        rows.quotient(sequences.name, tree.name),
        20.0,
    )
    return Match(title="secrets", workload=None, contenders=[tree, sequences], figures=[figure])


def _evidence(*, quick: bool) -> Match:
    """The size of evidence as `fedmem check` plans it, and of files of outputs that nothing was trained for."""
    size = "32 runs × 1,000" if quick else "128 runs × 10,000"
    contenders, figures = [], []
    for precision, limit in (("float64", 0.75), ("float32", None)):
        arguments = ("--precision", precision, *(["--quick"] if quick else []))
        planned, written = (
            Contender(
                name=f"{way}, {precision}", module="benchmarks.evidence", arguments=(way, *arguments), wants_plan=False
            )
            for way in ("planned", "written")
        )
        contenders += [planned, written]
        subject = f"{size} test rows × 20 rounds, {precision}"
        figures += [
            _part(
                f"{subject}: planned bytes, difference from written bytes", rows.apart(planned.name, written.name), 0.1
            ),
            _part(
                f"{subject}: memory to join, write, read and estimate, of all values", rows.held(written.name), limit
            ),
        ]
    return Match(title="evidence", workload=None, contenders=contenders, figures=figures)


def _adapters() -> Match:
    """32 federations over one base: relative to one full fine-tuning of it, and to loops with peft."""
    own, plain = (
        Contender(
            name=f"{who}, adapters",
            module="benchmarks.adapters",
            arguments=(who,),
            essential=False,  # MiniLM has to be fetched first
            wants_plan=False,
        )
        for who in ("ours", "plain")
    )
    figures = []
    for way, text, aim in (
        ("every block", "adapters in every block", 16.0),
        ("last block", "adapters in the last block", 4.0),
        ("head", "the head alone", 4.0),
    ):
        bank = own.name, f"seconds, {way}"
        for full, which in ((own, "fedmem"), (plain, "a plain loop")):
            figures.append(
                Row(
                    workload="adapters",
                    text=f"32 federations of MiniLM, {text}: over one full fine-tuning by {which}",
                    value=rows.within(bank, (full.name, "seconds, full")),
                    target=aim,
                    better="below",
                )
            )
        loop = rows.within((plain.name, f"seconds, {way}"), bank)
        figures.append(_row("adapters", f"32 federations of MiniLM, {text}: 32 plain loops with peft", loop))
    return Match(title="adapters", workload=None, contenders=[own, plain], figures=figures)


def _part(text: str, value: rows.Value, target: float | None) -> Row:
    return Row(workload="evidence", text=text, value=value, target=target, better="below", unit="share")


def _row(workload: str, text: str, value: rows.Value, target: float | None = None) -> Row:
    return Row(workload=workload, text=text, value=value, target=target)
