"""The plain PyTorch loop: one process after the other client, or as many persistent processes as asked for."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from benchmarks import local, networks
from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan


def train(plan: Plan, setting: Setting) -> Trained:
    """Federated averaging of all runs, one after the other."""
    torch.set_num_threads(setting.threads)
    if setting.workers > 1:
        return _in_processes(plan, setting)
    clock, data = Clock(), local.Data(plan)
    module = networks.build(plan.network)
    for run in range(setting.runs):
        local.prepare(module, plan.initial)
        for round_number in range(setting.rounds):
            before = [value.detach().clone() for value in module.parameters()]
            local.load(module, _mean(plan, data, module, before, run, round_number, range(plan.cohorts.shape[2])))
            clock.round()
    return Trained(params=local.arrays(module), value=clock.seconds())


def _mean(
    plan: Plan,
    data: local.Data,
    module: torch.nn.Module,
    before: list[Tensor],
    run: int,
    round_number: int,
    places: range,
) -> list[Tensor]:
    """The part that these places of the cohort have in the mean of all, weighted by rows."""
    total = sum(data.size(run, round_number, place) for place in range(plan.cohorts.shape[2]))
    mean = [torch.zeros_like(value) for value in before]
    for place in places:
        local.load(module, before)
        local.steps(module, data.batches(run, round_number, place), plan.lr)
        with torch.no_grad():
            for kept, value in zip(mean, module.parameters(), strict=True):
                kept.add_(value, alpha=data.size(run, round_number, place) / total)
    return mean


def _in_processes(plan: Plan, setting: Setting) -> Trained:
    """Workers live as long as the training and share their sums; only the word to go on passes between rounds."""
    assert setting.runs == 1, "several runs are trained one after the other in one process"
    module = local.prepare(networks.build(plan.network), plan.initial)
    current = [_shared(value.detach().clone()) for value in module.parameters()]
    sums = [[_shared(torch.zeros_like(value)) for value in current] for _ in range(setting.workers)]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in sums]
    workers = [
        context.Process(target=_work, args=(plan, setting, i, current, sums[i], pipes[i][1]), daemon=True)
        for i in range(setting.workers)
    ]
    for worker in workers:
        worker.start()
    clock = Clock()
    for round_number in range(setting.rounds):
        for here, _ in pipes:
            here.send(round_number)
        for here, _ in pipes:
            here.recv()
        for value, *parts in zip(current, *sums, strict=True):
            value.copy_(torch.stack(parts).sum(dim=0))
        clock.round()
    for here, _ in pipes:
        here.send(None)
    for worker in workers:
        worker.join()
    local.load(module, current)
    return Trained(params=local.arrays(module), value=clock.seconds())


def _shared(value: Tensor) -> Tensor:
    """The same numbers where other processes see them."""
    value.share_memory_()  # type: ignore[no-untyped-call]
    return value


def _work(plan: Plan, setting: Setting, i: int, current: list[Tensor], sums: list[Tensor], pipe: Connection) -> None:
    torch.set_num_threads(setting.threads)
    data, module = local.Data(plan), networks.build(plan.network)
    places = range(i, plan.cohorts.shape[2], setting.workers)
    while (round_number := pipe.recv()) is not None:
        for kept, value in zip(sums, _mean(plan, data, module, current, 0, round_number, places), strict=True):
            kept.copy_(value)
        pipe.send(round_number)


if __name__ == "__main__":
    main(train)
