"""The benchmarks stay alive: tiny plans through every part that needs nothing but this project and torch."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    auto,
    bench,
    contender,
    environments,
    exposure,
    inversion,
    kernel,
    machine,
    matches,
    networks,
    ours,
    plain,
    report,
    rows,
    split,
    victims,
)
from benchmarks import workloads as work
from benchmarks.contender import Setting, Trained
from benchmarks.contest import Contender, Measured, hold
from benchmarks.plan import Plan
from fedmem.execution.bank import simulate

pytestmark = pytest.mark.slow

TINY = {
    "W1": lambda: work.perceptron(clients=12, rows=15, rounds=3),
    "W2": lambda: replace(work.convolutions(clients=3, rows=5, side=12, cohort=2), rounds=2),
    "W3": lambda: replace(work.characters(clients=10, rows=3, length=5), rounds=2),
    "W4": lambda: replace(work.bank(runs=4), rounds=2),
}


@pytest.mark.parametrize("name", TINY)
def test_the_plain_loop_ends_with_the_weights_of_fedmem(name: str) -> None:
    workload = TINY[name]()
    plan, federation = work.plan_of(workload)
    trained = plain.train(plan, Setting(rounds=workload.rounds, runs=plan.runs))
    for server in ("messages", "rule"):
        shown = simulate(workload.scenario(server=server), federation, watch=False)
        assert bench.distance(trained.params, {n: v.numpy() for n, v in shown.params[-1].items()}) < bench.TOLERANCE
    moved = bench.distance(plan.initial, trained.params)
    assert moved > 1e-4
    without = replace(plan, batches=plan.batches[..., 1:])
    other = plain.train(without, Setting(rounds=workload.rounds, runs=plan.runs))
    assert bench.distance(trained.params, other.params) > 10 * bench.TOLERANCE, "a row less in each batch is noticed"


def test_two_processes_do_the_work_of_one() -> None:
    plan, _ = work.plan_of(TINY["W1"]())
    one, two = (plain.train(plan, Setting(rounds=3, workers=workers)) for workers in (1, 2))
    assert bench.distance(one.params, two.params) < 1e-6
    assert one.value > 0
    assert two.value > 0


def test_a_bank_trains_each_federation_on_its_own_rows() -> None:
    plan, federation = work.plan_of(TINY["W4"]())
    used = [set(plan.held[run][plan.held[run] >= 0].tolist()) for run in range(plan.runs)]
    assert len({frozenset(rows) for rows in used}) == plan.runs
    assert np.mean([len(rows) for rows in used]) / len(federation.store) == pytest.approx(0.7, abs=0.02)
    for round_number in range(plan.rounds):
        batches = plan.batches_of(1, round_number, 0)
        assert sorted(np.concatenate(batches)) == sorted(plan.rows_of(1, plan.cohorts[1, round_number, 0]))


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan, _ = work.plan_of(TINY["W1"]())
    plan.save(tmp_path / "plan.npz")
    again = Plan.load(tmp_path / "plan.npz")
    assert dict(again.network) == dict(plan.network)
    assert bench.distance(plan.initial, again.initial) == 0
    assert all(np.array_equal(getattr(plan, n), getattr(again, n)) for n in ("inputs", "cohorts", "batches", "held"))


@pytest.mark.parametrize("measure", ["agreement", "round", "whole", "outside"])
def test_fedmem_as_a_contender(measure: str) -> None:
    trained = ours.MEASURES[measure](TINY["W1"](), {"server": "rule"})
    assert set(trained.params) == {"hidden1.weight", "hidden1.bias", "output.weight", "output.bias"}
    if measure == "outside":
        assert 0 < trained.value < 1


def test_fedmem_as_a_contender_with_many_runs() -> None:
    assert ours.MEASURES["bank"](TINY["W4"](), {"server": "rule"}).value > 0
    watched = replace(work.watched(runs=2), rounds=5)
    seen = ours.MEASURES["watching"](watched, {"server": "rule"})
    assert seen.value > 0
    assert bench.distance(seen.params, seen.params) == 0


def test_signals_are_held_against_their_announced_price() -> None:
    plain, read = (replace(work.watched(runs=2, signals=signals), rounds=5) for signals in (False, True))
    assert ours.MEASURES["price"](plain, {}).value == 0
    assert ours.MEASURES["price"](read, {}).value > 0
    seconds = {"read": 9.0, "observed": 6.0, "plain": 4.0, "price": 0.5}
    values = {n: [Measured(trained=Trained(params={}, value=s), whole=0.0)] for n, s in seconds.items()}
    # 3 of 4 seconds more, where half of them were announced
    assert rows.over_price("read", "observed", "plain", "price")(values, 0) == 1.5


def test_arithmetic_is_counted_as_torch_counts_it() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    plan, _ = work.plan_of(TINY["W2"]())
    module = networks.build(plan.network)
    inputs, targets = plan.inputs[:4], plan.targets[:4]
    with FlopCounterMode(display=False) as counter:
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(inputs)), torch.from_numpy(targets))
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch does not say its types
    assert work.convolution_gigaflops(12) * 4 == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-3)


def test_exposure_workloads_must_agree_on_ranks() -> None:
    tree, sequences = (exposure.rank(way, digits=3) for way in ("tree", "sequences"))
    assert tree.params["rank"].tolist() == sequences.params["rank"].tolist()
    assert tree.params["rank"][0] == 1, "the first was learnt"
    assert len(set(tree.params["rank"].tolist())) == exposure.SECRETS
    samples = {name: [Measured(trained=one, whole=1.0)] for name, one in (("a", tree), ("b", sequences))}
    assert "7 others alike" in bench.ranks(samples)[0]
    other = replace(tree, params={"rank": tree.params["rank"] + 1})
    with pytest.raises(SystemExit, match="ranks differ"):
        bench.ranks({**samples, "b": [Measured(trained=other, whole=1.0)]})


def test_the_rate_of_a_convolution() -> None:
    plan, _ = work.plan_of(TINY["W2"]())
    assert 0.1 < kernel.train(plan, Setting(rounds=1, workers=1)).value < 1e5


def test_a_contest_runs_processes_and_skips_those_that_fail(tmp_path: Path) -> None:
    plan, _ = work.plan_of(TINY["W1"]())
    plan.save(tmp_path / "plan.npz")
    good = rows.other("plain loop", "plain", rounds=2)
    bad = Contender(name="bad", module="benchmarks.peers.nobody", essential=False)
    said: list[str] = []
    samples, skipped = hold([bad, good], tmp_path, 2, said.append)
    assert len(samples["plain loop"]) == 2
    assert samples["plain loop"][0].whole > samples["plain loop"][0].trained.value > 0
    assert len(skipped) == 1
    assert "nobody" in skipped[0]
    with pytest.raises(SystemExit, match="nobody"):
        hold([replace(bad, essential=True)], tmp_path, 1, said.append)


def test_every_figure_follows_from_the_contenders_of_its_match() -> None:
    for match in matches.matches(peers=True, quick=False):
        memory = {"start": np.array(1.0), "peak": np.array(3.0), "values": np.array(4.0)}
        seconds = {f"seconds, {way}": np.array(2.0) for way in ("full", "every block", "last block", "head")}
        params = {"evidence": memory, "adapters": seconds}.get(match.title, {})
        trained = Trained(params=params, value=2.0)
        values = {c.name: [Measured(trained=trained, whole=3.0)] for c in match.contenders}
        results = rows.evaluate(match.figures, values, 1)
        assert all(len(result.values) == 1 for result in results), match.title
        assert all(result.row.workload in report.table(results) for result in results)
        for peer in {entry.peer for entry in match.contenders} - {None}:
            assert peer in environments.PEERS
            assert (Path(contender.__file__).parent / "peers" / f"{peer}.py").is_file()


def test_examples_in_docstrings_hold() -> None:
    for module in (auto, contender, machine, report, rows):
        found = doctest.testmod(module)
        assert found.attempted, module.__name__
        assert not found.failed, module.__name__


def test_a_figure_without_its_contender_is_not_measured() -> None:
    row = rows.Row(workload="W1", text="x", value=rows.against(rows.FLOWER, "own"), target=2.0)
    alone = {"own": [Measured(trained=Trained(params={}, value=1.0), whole=1.0)]}
    (result,) = rows.evaluate([row], alone, 1)
    assert result.verdict == "not measured"
    both = alone | {"Flower, 1 actor": [Measured(trained=Trained(params={}, value=3.0), whole=1.0)]}
    (result,) = rows.evaluate([row], both, 1)
    assert (result.values, result.verdict) == ((3.0,), "reached")
    both["Flower, 2 actors"] = [Measured(trained=Trained(params={}, value=1.5), whole=1.0)]
    (result,) = rows.evaluate([row], both, 1)
    assert (result.values, result.verdict) == ((1.5,), "missed"), "held against the fastest"


@pytest.mark.nightly
def test_every_executor_is_measured_on_every_size() -> None:
    gains = auto.measure(auto.CASES[1], (1, 8), 1)
    assert set(gains) == {1, 8}
    assert all(gain > 0 for gain in gains.values())
    assert all(case.scenario(2, 1, "one_by_one").clients == 2 for case in auto.CASES)


def test_the_attacks_of_the_contest_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOGETHER", "APART"):
        monkeypatch.setattr(inversion, name, 3)
    reached = {}
    for network in victims.NETWORKS:
        monkeypatch.setitem(victims.STEPS, network, 6)
        found = [who(network) for who in (inversion.plain, inversion.ours)]
        assert all(one.value > 0 for one in found)
        first, second = (one.params["distance"] for one in found)
        assert np.allclose(first, second, atol=2e-3)
        reached[network] = first
    monkeypatch.setitem(victims.STEPS, "mlp", 1)
    assert not np.allclose(inversion.ours("mlp").params["distance"], reached["mlp"], atol=2e-3), "less work is noticed"


def test_the_timed_parts_of_a_round_exist() -> None:
    missing = [name for _, place, name in split.PARTS if not hasattr(place, name)]
    assert missing == []


def test_results_of_one_workload_survive_measuring_another(tmp_path: Path) -> None:
    held = [match for match in matches.matches(peers=True, quick=False) if match.title in ("attacks", "secrets")]
    first, second = (
        report.Part(
            machine="2 cores",
            repetitions=2,
            values={row.text: [1.25, 1.75] for row in match.figures},
            remarks=[f"{match.title}: seen"],
        )
        for match in held
    )
    report.write(tmp_path / "results.json", {held[0].title: first})
    kept = report.read(tmp_path / "results.json")
    assert kept == {held[0].title: first}
    page = report.page(held, kept | {held[1].title: replace(second, repetitions=1)})
    assert page.count("1.50 (1.25 to 1.75)") == sum(len(match.figures) for match in held)
    assert "2 cores; repetitions: 2" in page
    assert "2 cores; repetitions: 1" in page
    assert held[1].figures[0].text not in report.page(held, kept)
    assert report.read(tmp_path / "nothing.json") == {}
