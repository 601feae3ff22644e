"""The contest: `make bench`, or `python -m benchmarks.bench [--quick] [--only W2] [--repetitions 3]`.

What was measured last of each workload is kept in `results.json`, from which the page `results.md` is written.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import contest, machine, report
from benchmarks.contest import Contender, Samples
from benchmarks.environments import Unavailable
from benchmarks.matches import Match, matches
from benchmarks.networks import loss_of
from benchmarks.plan import Arrays, Plan
from benchmarks.rows import Result, evaluate, other, ours, rivals
from benchmarks.workloads import plan_of

PAGE = Path(__file__).parent / "results.md"
KEPT = PAGE.with_suffix(".json")

TOLERANCE = 1e-5
"""How far weights may be apart after two rounds of the same batches; W2 is chaotic and drifts apart later."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Hold the matches, print each row, keep what was measured and write the page; the quick mode keeps nothing."""
    titles = [match.title for match in matches(peers=False, quick=True)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, and nobody but Flower and the plain loop")
    parser.add_argument("--only", choices=titles, action="append", help="these workloads alone")
    parser.add_argument("--repetitions", type=int, help="how often each contender runs (3, or 1 with --quick)")
    given = parser.parse_args(arguments)
    repetitions = given.repetitions or (1 if given.quick else 3)
    kept = {} if given.quick else report.read(KEPT)
    held = matches(peers=not given.quick, quick=given.quick)
    for match in held:
        if given.only is None or match.title in given.only:
            times = match.repetitions or repetitions
            found, said = play(match, times, peers=not given.quick)
            kept[match.title] = report.Part(
                machine=machine.describe(),
                repetitions=times,
                values={result.row.text: list(result.values) for result in found},
                remarks=said,
            )
            if not given.quick:  # each as soon as it is there: the whole takes more than an hour
                report.write(KEPT, kept)
                PAGE.write_text(report.page(held, kept))
    print(report.page(held, kept))


def play(match: Match, repetitions: int, *, peers: bool) -> tuple[list[Result], list[str]]:
    """One match: check that contenders agree, run them in turn, evaluate; with what has to be remarked."""
    print(f"{match.title}:", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, remarks = Path(name), []
        if match.workload is not None:
            plan, _ = plan_of(match.workload)
            plan.save(folder / "plan.npz")
            remarks += agreement(match, plan, folder, peers=peers)
        samples, skipped = contest.hold(match.contenders, folder, repetitions)
        remarks += [f"{match.title}: skipped {line}" for line in skipped]
        if match.title == "attacks":
            remarks += distances(samples)
        if match.title == "adapters":
            remarks += same_ends(samples)
        if match.title == "secrets":
            remarks += ranks(samples)
        if match.workload is not None and match.title != "W4":
            remarks += losses(match, plan, samples)
    results = evaluate(match.figures, samples, repetitions)
    for result in results:
        print(f"  {result.row.text}: {report.figure(result)} {report.target(result)} {result.verdict}", flush=True)
    return results, remarks


def agreement(match: Match, plan: Plan, folder: Path, *, peers: bool) -> list[str]:
    """Who is given the same batches has the same weights after two rounds. Errors: `SystemExit` if ours differ."""
    runs = plan.runs if match.title == "W4" else 1
    reference = contest.run(other("plain loop", "plain", rounds=2, runs=runs), folder).trained.params
    remarks = []
    for server in ("messages", "rule"):
        apart = distance(reference, contest.run(ours("agreement", match.title, server), folder).trained.params)
        remarks.append(f"{match.title}: fedmem ({server}) and the plain loop differ by {apart:.0e} after two rounds")
        if apart > TOLERANCE:
            raise SystemExit(remarks[-1] + f", more than {TOLERANCE:.0e}: they do not do the same work")
    if match.title != "W4":
        for rival in rivals(2, small=match.title == "W1", peers=peers):
            if "flower" not in rival.module:
                remarks += _agrees(match, replace(rival, essential=False), reference, folder)
    return remarks


def _agrees(match: Match, rival: Contender, reference: Arrays, folder: Path) -> list[str]:
    try:
        apart = distance(reference, contest.run(rival, folder).trained.params)
    except Unavailable:
        return []  # it will be skipped in the contest, where the reason is said
    if apart <= TOLERANCE:
        return []
    return [f"{match.title}: {rival.name} differs from the plain loop by {apart:.0e} after two rounds"]


def losses(match: Match, plan: Plan, samples: Samples) -> list[str]:
    """The training loss that everybody ends with, to be compared."""
    rows = np.arange(0, len(plan.inputs), max(1, len(plan.inputs) // 2000))
    inputs, targets = plan.inputs[rows], plan.targets[rows]
    found = [
        f"{name} {loss_of(plan.network, measured[-1].trained.params, inputs, targets):.3f}"
        for name, measured in samples.items()
        if measured and measured[-1].trained.params
    ]
    start = loss_of(plan.network, plan.initial, inputs, targets)
    return [f"{match.title}: training loss from {start:.3f} to: {', '.join(found)}"]


def distances(samples: Samples) -> list[str]:
    """The matching distance that every attack ends with, of the same victims from the same starts."""
    found = [
        f"{name} {np.median(measured[-1].trained.params['distance']):.1e}"
        for name, measured in samples.items()
        if measured
    ]
    return [f"attacks: median distance after equally many iterations: {', '.join(found)}"]


def ranks(samples: Samples) -> list[str]:
    """The ranks that both ways give to the same secrets. Errors: `SystemExit` if they differ."""
    found = {tuple(one.trained.params["rank"].tolist()) for measured in samples.values() for one in measured}
    if len(found) != 1:
        raise SystemExit(f"secrets: ranks differ: {sorted(found)}; they do not do the same work")
    return [f"secrets: both rank the secret that was learnt and {len(found.pop()) - 1} others alike"]


def same_ends(samples: Samples) -> list[str]:
    """The losses and parameters that both ways end with. Errors: `SystemExit` if they differ by more than rounding."""
    if len(samples) < 2:
        return []
    own, loop = (measured[-1].trained.params for measured in samples.values())
    ways = [name.removeprefix("loss, ") for name in own if name.startswith("loss, ")]
    apart = max(abs(float(own[f"loss, {way}"] - loop[f"loss, {way}"])) for way in ways)
    moved = max(float(np.abs(own[f"moved, {way}"] - loop[f"moved, {way}"]).max()) for way in ways)
    if max(apart, moved) > TOLERANCE:
        raise SystemExit(f"adapters: losses differ by {apart:.0e}, parameters by {moved:.0e}: not the same work")
    ends = ", ".join(f"{way} {float(own[f'loss, {way}']):.4f}" for way in ways)
    most = max(float(np.abs(own[f"moved, {way}"]).max()) for way in ways)
    return [
        f"adapters: the losses of fedmem and the plain loop differ by {apart:.0e} ({ends}). Their parameters moved by "
        f"up to {most:.2g} and differ by {moved:.0e}"
    ]


def distance(one: Arrays, two: Arrays) -> float:
    """The largest difference between two sets of weights."""
    return max(float(np.abs(value - two[name]).max()) for name, value in one.items())


if __name__ == "__main__":
    main()
