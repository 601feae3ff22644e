"""Command lines that nobody would type: each is answered with a short message and an exit code,
never with a traceback.

All mutations are drawn from a fixed seed. Nothing is trained: what a command would run is replaced.
"""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.errors import MAX_LINES, RunError
from tests.tiny import TINY

HUGE = "9" * 5000
LONG = 10**30
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, 10**12, LONG, -LONG, int("9" * 399), "", " ", "x", "null",
    "é" * 40,
    "0:3", "a.b", "..", "[", "{", "kind", "fedavg", "x" * 6000, [], [[]], [None], {}, {"": 1}, {"kind": None},
    {"kind": 5},
    {"kind": "x" * 3000}, {"kind": "krum"}, [1, "two"], [0] * 300, {str(i): i for i in range(200)}, {"path": ""},
)  # fmt: skip


def answer(words: list[str]) -> str:
    """What is wrong with the answer to a command; empty if nothing is."""
    done = CliRunner().invoke(app, words)
    said = done.stderr
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"{type(done.exception).__name__}: {str(done.exception)[:200]}"
    if done.exit_code not in (0, 1, 2):
        return f"exit code {done.exit_code}"
    if "Traceback" in said or "Traceback" in done.stdout:
        return "a traceback"
    if done.exit_code and not (said + done.stdout).strip():
        return "nothing is said"
    lines = said.splitlines()
    if len(lines) > MAX_LINES + 6:  # a frame around a message about arguments has six lines
        return f"{len(lines)} lines: {said[:300]}"
    return f"{len(said)} characters: {said[:200]}" if len(said) > 5000 else ""


def all_answered(commands: Iterator[list[str]]) -> None:
    wrong = {" ".join(words)[:300]: why for words in commands if (why := answer(words))}
    assert not wrong, "\n\n".join(f"{words}\n    {why}" for words, why in wrong.items())


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RunError("nothing is trained here")

    monkeypatch.chdir(tmp_path)
    for place in (
        "fedmem.execution.run.run",
        "fedmem.execution.run.with_required_noise",
        "fedmem.execution.many_scenarios.compute",
        "fedmem.studies.compare.run_all",
    ):
        monkeypatch.setattr(place, failing)
    monkeypatch.setattr("fedmem.studies.sweep_folder.run_all", lambda *_, **__: [])
    monkeypatch.setattr("fedmem.studies.sweep_folder._check_unchanged", lambda *_, **__: None)
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree."""
    yield place
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*place, key))


def mutated(tree: Any, rng: random.Random) -> Any:
    """The tree with one to three changes: another value, a key less or more, a value of elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.choice([place for place in places(tree) if place] or [()])
        if not place:
            return rng.choice(ODD)
        outer = tree
        for key in place[:-1]:
            outer = outer[key]
        way = rng.randrange(4)
        if way == 0 and isinstance(outer, dict):
            del outer[place[-1]]
        elif way == 1 and isinstance(outer, dict):
            outer[rng.choice(("kind", "x", "", "path", "values", "range", "zip", "seeds", "rounds"))] = rng.choice(ODD)
        else:
            outer[place[-1]] = copy.deepcopy(rng.choice(ODD))
    return tree


SWEEPS: tuple[dict[str, Any], ...] = (
    {"base": "tiny.yaml", "axes": [{"path": "client.lr", "values": [0.1, 0.3]}], "seeds": "0:2", "set": {"rounds": 2}},
    {
        "base": "tiny.yaml",
        "name": "study",
        "axes": [
            {"path": "client.lr", "range": [0.01, 1.0], "steps": 3, "scale": "log"},
            {"zip": {"clients": [4, 5], "sampler.size": [2, 3]}},
            {"path": "sampler", "values": [{"kind": "uniform", "size": 2}, {"kind": "everyone"}]},
        ],
        "seeds": [0, 1],
    },
    {
        "base": "tiny.yaml",
        "axes": [{"path": "rounds", "range": [2, 4], "steps": 2}],
        "search": {"study": "front", "trials": 2, "batch": 2, "directions": {"test_accuracy": "maximize"}},
    },
)


def sweeps(count: int, seed: int) -> Iterator[list[str]]:
    rng = random.Random(seed)
    for number in range(count):
        tree = mutated(rng.choice(SWEEPS[:2]), rng)
        text = json.dumps(tree)
        if rng.random() < 0.15:
            text = text.replace("0.1", HUGE).replace("0:2", f"0:{HUGE}")
        if rng.random() < 0.1:
            cut = rng.randrange(len(text))
            text = (
                text[:cut] + rng.choice(("", "\x00", "&a ", "!!python/object:x ", "'", ": ", "\n- ")) + text[cut + 1 :]
            )
        Path(f"sweep{number}.yaml").write_text(text)
        yield ["sweep", f"sweep{number}.yaml"]


def searches(count: int, seed: int) -> Iterator[list[str]]:
    rng = random.Random(seed)
    for number in range(count):
        Path(f"search{number}.yaml").write_text(json.dumps(mutated(SWEEPS[2], rng)))
        yield ["sweep", f"search{number}.yaml"]


NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "nan",
    "1e99",
    "",
    "x",
    "99999999999999999999",
    HUGE,
    "0x10",
    "1,2",
    "[1]",
    "null",
)
PATHS = (
    "client", "client.lr", "client.kind", "strategy", "strategy.kind", "runs", "rounds", "clients", "seed", "name",
    "observe.rounds", "observe", "injections", "injections[0]", "injections[9]", f"injections[{HUGE}]",
    "injections[0].kind",
    "dataset", "dataset.kind", "dataset.rows", "speed.memory", "privacy", "probes", "x", "", ".", "a..b",
    "model.hidden",
    "model.hidden[0]", "population", "references", "bootstrap", "x" * 3000,
)  # fmt: skip
VALUES = (
    *NUMBERS, "fedmedian", "{kind: krum}", "{kind: 5}", "{", "[", "[[[]]]", "'", "a:b", "a.b:C", "os:path",
    "json:JSONDecoder",
    "x" * 7000, "[" + ", ".join(["x"] * 400) + "]", "{" + ", ".join(f"k{i}: 1" for i in range(300)) + "}", "&a b",
    "*a", "!!x",
)  # fmt: skip


def overrides(rng: random.Random, most: int = 3) -> list[str]:
    found = []
    for _ in range(rng.randrange(1, most + 1)):
        found += ["--set", f"{rng.choice(PATHS)}{rng.choice(('=', '=', '=', ''))}{rng.choice(VALUES)}"]
    return found


def runs(count: int, seed: int) -> Iterator[list[str]]:
    rng = random.Random(seed)
    for _ in range(count):
        command = rng.choice(("run", "run", "check", "compare", "report", "measure", "runs", "list", "show", "fetch"))
        if command in ("report", "measure", "runs", "list", "show", "fetch"):
            words = [
                rng.choice(("x", "", HUGE, "partition", "dirichlet", "tiny.yaml", ".")) for _ in range(rng.randrange(3))
            ]
            # of data sets to fetch none is named, since that would be fetched
            yield [command, *words]
            continue
        words = [
            command,
            rng.choice(("tiny.yaml", "tiny.yaml", "tiny.yaml", "none.yaml", ".", "x" * 300)),
            *overrides(rng),
        ]
        if command == "run":
            words += rng.choice(
                ([], ["--seed", rng.choice(NUMBERS)], ["--runs", rng.choice(NUMBERS)], ["--engine", "x"])
            )
        if command == "compare":
            words += ["--vary", f"{rng.choice(PATHS)}={rng.choice(VALUES)},{rng.choice(VALUES)}"]
            words += rng.choice(
                ([], ["--seeds", rng.choice((f"0:{LONG}", f"0:{HUGE}", HUGE, "3:1", "1,1", "a", "", "5:5"))])
            )
            words += rng.choice(([], ["--reference", f"{rng.choice(PATHS)}={rng.choice(VALUES)}"], ["--jobs", "0"]))
        if rng.random() < 0.1:
            words.insert(rng.randrange(len(words)), rng.choice((f"--{HUGE}", "-x", "--", HUGE, "--help")))
        yield words


def quantised(value: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop them, but files of them remain
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def saved(folder: Path) -> list[str]:
    """Files of parameters of many sorts, some of them no such files."""
    state = {f"output.{name}": value for name, value in torch.nn.Linear(4, 3).state_dict().items()}
    moved = {name: value + 0.1 for name, value in state.items()}
    files: dict[str, Any] = {
        "before.pt": state,
        "after.pt": moved,
        "meta.pt": {name: value.to("meta") for name, value in state.items()},
        "quantised.pt": {name: quantised(value) for name, value in state.items()},
        "complex.pt": {name: value.to(torch.complex64) for name, value in state.items()},
        "sparse.pt": {name: value.to_sparse() for name, value in state.items()},
        "nan.pt": {name: value * torch.nan for name, value in state.items()},
        "empty.pt": {},
        "list.pt": [1, 2],
        "whole.pt": {name: value.to(torch.int64) for name, value in moved.items()},
        "odd.pt": {5: torch.zeros(2), "output.weight": torch.zeros(0)},
    }
    for name, content in files.items():
        torch.save(content, folder / name)
    np.savez(folder / "after.npz", *[value.numpy() for value in moved.values()])
    np.savez(folder / "text.npz", weight=np.array(["a"]), bias=np.array([1]))
    np.save(folder / "truth.npy", np.zeros((1, 4), dtype=np.float32))
    np.savez(folder / "truth.npz", inputs=np.zeros((1, 4), dtype=np.float32))
    np.savez(folder / "words.npz", inputs=np.array(["a"]))
    np.savez(folder / "none.npz")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no")
    (folder / "broken.pt").write_bytes(b"\x80\x02.")
    (folder / "broken.safetensors").write_bytes(b"x" * 20)
    return [*files, "after.npz", "text.npz", "broken.npz", "broken.pt", "broken.safetensors", "missing.pt", "."]


def attacks(count: int, seed: int) -> Iterator[list[str]]:
    rng, names = random.Random(seed), saved(Path())
    sound: dict[str, tuple[str, ...]] = {
        "--model": ("logistic",),
        "--shape": ("4",),
        "--classes": ("3",),
        "--images": ("1",),
        "--lr": ("0.1",),
    }
    odd: dict[str, tuple[str, ...]] = {
        "--model": ("mlp", "char_rnn", "tabular_mlp", "x", "", "torch.nn:Linear", "json:JSONDecoder", "os:path",
        "a:b", HUGE),
        "--shape": ("99999999999999999999", "0", "-1", "", "x", "1,2,2", HUGE, "4,", "100000,100000"),
        "--classes": NUMBERS,
        "--images": NUMBERS,
        "--lr": (*NUMBERS, "-0.1", "inf"),
        "--steps": NUMBERS,
        "--batch-size": NUMBERS,
        "--labels": ("0", "-1", "3", "x", HUGE, "0,1", ""),
        "--mode": ("eval", "x", ""),
        "--mean": ("0.5", "x", "nan", HUGE, "1,2,3"),
        "--std": ("0.5", "0", "x", "-1"),
        "--seed": NUMBERS,
        "--truth": ("truth.npy", "truth.npz", "words.npz", "none.npz", "missing.npz", "broken.npz", "."),
        "--gallery": ("truth.npy", "words.npz", "truth.npz"),
        "--attack": ("dlg", "idlg", "lira", "x", "", "closed_form", "linear_layer", "tag", HUGE),
        "--clients": NUMBERS,
        "--set": (
            "model=", "model={}", "attack=", "attack=5", "model.kind=", "attack.kind=5", "attack.steps=x", "x=1",
            "attack.x=1",
            "model.hidden=[0]", f"attack.steps={HUGE}", "model.kind=mlp", "=", "", "model.hidden=" + "[1]" * 900,
        ),
    }  # fmt: skip
    for number in range(count):
        options = dict(sound)
        for name in rng.sample(sorted(odd), rng.choice((0, 1, 1, 2, 3))):
            options[name] = odd[name]
        before, after = (rng.choice(("before.pt", name)) for name in rng.choices(names, k=2))
        words = ["attack", before, "after.pt" if before != "before.pt" else after, "--out", f"out{number}"]
        words += ["--set", "attack.steps=1", "--attack", "inverting_gradients"] if "--attack" not in options else []
        words += [word for name, values in options.items() for word in (name, rng.choice(values))]
        if rng.random() < 0.1:
            del words[rng.randrange(1, len(words))]
        yield words + rng.choice(([], ["--gradient"], ["--in-order"]))


ATTACK = ("--model", "logistic", "--shape", "4", "--classes", "3", "--images", "1", "--lr", "0.1", "--out", "out")
COMPARE = ("compare", "tiny.yaml", "--vary", "client.lr=0.1,0.2")
NAMED: dict[str, tuple[tuple[str, ...], str]] = {
    "seeds of thirty digits": ((*COMPARE, "--seeds", f"0:{LONG}"), "is too large; seeds are below 2^63"),
    "seeds of 5000 digits": ((*COMPARE, "--seeds", f"0:{HUGE}"), "is too large; seeds are below 2^63"),
    "one seed of 5000 digits": ((*COMPARE, "--seeds", HUGE), "is too large; seeds are below 2^63"),
    "--seed of 5000 digits": (("run", "tiny.yaml", "--seed", HUGE), "is not a valid"),
    "--runs of 5000 digits": (("run", "tiny.yaml", "--runs", HUGE), "is not a valid"),
    "a value of 5000 digits": (("check", "tiny.yaml", "--set", f"rounds={HUGE}"), "of 5000 digits is too long"),
    "a place of 5000 digits": (("check", "tiny.yaml", "--set", f"injections[{HUGE}]=1"), "is no path such"),
    "a file with 5000 digits": (("check", "digits.yaml"), "a number of 5000 digits is too long"),
    "many mistakes": (("check", "mistakes.yaml"), "more"),
    "an unknown key of an axis": (("sweep", "axis.yaml"), "axes[0].x: unknown key"),
    "an unknown key of a search": (("sweep", "search.yaml"), "search.x: unknown key"),
    "seeds of a sweep": (("sweep", "seeds.yaml"), "is too large; seeds are below 2^63"),
    "a meta tensor": (("attack", "meta.pt", "after.pt", *ATTACK), "on the device meta"),
    "a quantised tensor": (("attack", "before.pt", "quantised.pt", *ATTACK), "is quantised"),
    "a sparse tensor": (("attack", "before.pt", "sparse.pt", *ATTACK), "is sparse"),
    "a complex tensor": (("attack", "before.pt", "complex.pt", *ATTACK), "of complex numbers"),
    "a negative seed": (("attack", "before.pt", "after.pt", *ATTACK, "--seed", "-1"), "--seed: should be from 0"),
    "a huge shape": (
        ("attack", "before.pt", "after.pt", *ATTACK, "--shape", "99999999999999999999"),
        "--shape: should stay below",
    ),
    "a model of nothing": (("attack", "before.pt", "after.pt", *ATTACK, "--set", "model="), "should be a mapping"),
    "a model without a kind": (("attack", "before.pt", "after.pt", *ATTACK, "--set", "model={}"), "model.kind"),
    "a truth in .npy": (("attack", "before.pt", "after.pt", *ATTACK, "--truth", "truth.npy"), "save it as an .npz"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_former_tracebacks_are_short_errors_with_exit_code_2(name: str, tmp_path: Path) -> None:
    words, says = NAMED[name]
    saved(tmp_path)
    axis = {"path": "client.lr", "values": [0.1, 0.3]}
    files: dict[str, Any] = {
        "axis": {"base": "tiny.yaml", "axes": [{**axis, "x": 1}]},
        "search": {**SWEEPS[2], "search": {**SWEEPS[2]["search"], "x": 1}},
        "seeds": {"base": "tiny.yaml", "axes": [axis], "seeds": f"0:{LONG}"},
        "mistakes": {**TINY, **{f"unknown{i}": "x" * 500 for i in range(60)}},
    }
    for file, content in files.items():
        (tmp_path / f"{file}.yaml").write_text(json.dumps(content))
    (tmp_path / "digits.yaml").write_text(json.dumps(TINY).replace('"rounds": 4', f'"rounds": {HUGE}'))
    assert answer(list(words)) == ""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())


BATTERIES: dict[str, Callable[[int, int], Iterator[list[str]]]] = {
    "sweeps": sweeps, "searches": searches, "runs": runs, "attacks": attacks,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [("sweeps", 30), ("runs", 40), ("attacks", 30)])
def test_no_command_line_ends_in_a_traceback(name: str, count: int) -> None:
    all_answered(BATTERIES[name](count, 15))


@pytest.mark.parametrize("command", ["measure", "runs", "report", "run", "check", "sweep", "compare"])
def test_a_path_that_no_system_takes_is_not_printed_whole(command: str) -> None:
    assert answer([command, "9" * 5000]) == ""


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "count"), [("sweeps", 500), ("searches", 60), ("runs", 600), ("attacks", 400)])
def test_no_command_line_of_many_ends_in_a_traceback(name: str, count: int) -> None:
    all_answered(BATTERIES[name](count, 1515))
