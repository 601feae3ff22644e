"""The shipped scenarios: each says what it asks, each finishes, and together they use everything there is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts import families
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.data import dataset_declaration
from fedmem.contracts.estimator import estimator_declaration
from fedmem.contracts.families import FAMILIES, sources
from fedmem.contracts.injection import injection_declaration
from fedmem.contracts.needs import measures_of, needs_of
from fedmem.contracts.signal import signal_declaration
from fedmem.contracts.strategy import client_of
from fedmem.execution.run import run
from fedmem.fetched.files import Published
from fedmem.fetched.models import MODELS
from fedmem.models.huggingface import HuggingFace
from fedmem.privacy import spending
from fedmem.probes.leakage import Leakage
from fedmem.reporting.first_screen import FirstScreen
from fedmem.results.run_summary import RunSummary
from fedmem.scenario import catalogue, describe
from fedmem.scenario.initial import InitialWeights
from fedmem.scenario.loading import load_scenario
from fedmem.scenario.scenario import Scenario
from tests.models.huggingface_helpers import save_model
from tests.narrowing import instance
from tests.published import idx_images, put_in_cache, said
from tests.tiny import tiny

FOLDER = Path(__file__).resolve().parents[2] / "scenarios"
PATHS = sorted(FOLDER.glob("*.yaml"))
every_scenario = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def missing(scenarios: list[Scenario]) -> set[tuple[str, str]]:
    """Every (family, kind) that none of these uses."""
    values = [[getattr(scenario, name) for name in Scenario.model_fields] for scenario in scenarios]
    used = {type(component) for _, component in families.nested_components(values)}
    return {
        (family, kind)
        for family in FAMILIES
        for kind in catalogue.kinds(family)
        if catalogue.load(family, kind) not in used
    }


def reads_fetched(dataset: Any) -> bool:
    """Whether a published data set has to be fetched: some of it may ship."""
    declared = dataset_declaration(dataset)
    return declared.published is not None and declared.reads_fetched_data


@every_scenario
def test_scenario_begins_with_command_schema_question_and_time(path: Path) -> None:
    lines = path.read_text().splitlines()
    said = [line for line in lines if line.startswith("#")]
    assert said == lines[: len(said)]
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    published = dataset_declaration(scenario.dataset).published
    fetched = reads_fetched(scenario.dataset)
    name = instance(published, Published).name if fetched else fetched_name(scenario.model)
    before = f"fedmem fetch {name} && " if name else ""
    former = pretrained(scenario)
    before += f"fedmem run {former.stem} && " if former else ""
    assert said[0] == f"# {before}fedmem run scenarios/{path.name}"
    assert said[1] == "# yaml-language-server: $schema=./scenario.schema.json"
    assert 2 <= len(said[2:]) <= 4
    assert "?" in said[2]
    assert re.fullmatch(r"# Takes about [1-9]\d* s on two cores.*", said[-1])
    assert max(map(len, said)) <= 120


@every_scenario
def test_commands_in_the_header_can_be_given(path: Path) -> None:
    """`fedmem run NAME path=value…`, of this scenario, with changes that it accepts and that change it."""
    header = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    assert "--set" not in " ".join(header)
    for name, words in re.findall(r"`fedmem (?:run|compare) (\S+) (.*?)`", " ".join(header)):
        changes = [re.sub(r"=([^,]*),.*", r"=\1", word) for word in shlex.split(words) if word != "--vary"]
        assert name == path.stem
        assert load_scenario(path, changes).id != load_scenario(path).id


def test_every_kind_is_in_a_shipped_scenario_or_runs_small(tmp_path: Path) -> None:
    """A new component needs no scenario of its own."""
    scenarios = [load_scenario(path) for path in PATHS]
    for family, kind in sorted(missing(scenarios)):
        place = describe.place_of(family, kind)
        wanted = client_of(catalogue.load("strategy", kind)) if family == "strategy" else None
        client = {} if wanted is None else {"client": {"kind": wanted}}
        if "then" in place:  # some read the models of the phase before
            place |= {"observe": {"every": 1}, "sampler": {"kind": "everyone"}}
            place["save"] = {"models": {"rounds": [1, 2, 3, 4], "levels": ["local", "global"]}}
            place |= {"tied_dropout": {"layers": ["activation1"]}} if kind == "scrub" else {}
        run(tiny(**{"runs": 8, "name": kind, **client, **place}), out=tmp_path)
    # the test can fail: nobody else shows what trimmed_mean does
    assert missing([one for one in scenarios if families.kind_of(one.strategy) != "trimmed_mean"]) >= {
        ("strategy", "trimmed_mean")
    }


def test_every_choice_of_a_scenario_is_made_by_a_shipped_one() -> None:
    scenarios = [load_scenario(path) for path in PATHS]
    all_injections: list[Any] = [injection for one in scenarios for injection in one.injections]
    injections = [one for one in all_injections if not injection_declaration(one).takes_held]
    clients: list[Any] = [one.client for one in scenarios]
    assert {one.exclusion for one in scenarios} == {"replace", "remove"}
    assert {one.roster for one in scenarios} == {"shared", "pilot", "per_run"}
    weights = [one.initial_weights for one in scenarios]
    assert {one if isinstance(one, str) else "from" for one in weights} == {"shared", "per_run", "from"}
    assert any(one.leave_out.clients == "all" for one in scenarios)
    assert any(isinstance(one.leave_out.clients, tuple) for one in scenarios)
    assert {type(injection.clients) for injection in injections} >= {str, tuple}
    assert any(isinstance(chosen, Mapping) and "share" in chosen for chosen in (one.clients for one in injections))
    for name in ("start", "stop", "label"):
        assert any(getattr(injection, name) is not None for injection in injections), name
    assert any(injection.copies > 1 for injection in injections)
    assert any(one.clip for one in clients)
    assert any(one.decay < 1 for one in clients)


def pretrained(scenario: Scenario) -> Path | None:
    """The shipped scenario whose run has the weights that this one starts from."""
    section = scenario.initial_weights
    return FOLDER / f"{Path(section.source).name}.yaml" if isinstance(section, InitialWeights) else None


def npz(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", inputs=rng.random((600, 8)), targets=np.arange(600) % 3)
    return [f"path={folder / 'data.npz'}"]


def pictures(folder: Path) -> list[str]:
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("cat", "dog", "eel"):
        (folder / label).mkdir()
        for number in range(200):
            Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(folder / label / f"{number}.png")
    return [f"path={folder}", "size=8"]


def torchvision(folder: Path) -> list[str]:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision, an extra, is not installed")
    from fedmem.datasets._idx import pack

    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", 800), ("t10k", 100)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_images(rows, np.random.default_rng(0)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(pack((np.arange(rows) % 10).astype(np.uint8)))
    return ["name=MNIST", f"root={folder}", "download=false", "size=8"]


def hub(folder: Path) -> list[str]:
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("datasets, of the extra hub, is not installed")
    import pandas as pd

    pixels = list(np.random.default_rng(0).random((600, 5)))
    pd.DataFrame({"image": pixels, "label": np.arange(600) % 3}).to_parquet(folder / "train.parquet")
    return ["name=parquet", f"files=[{folder / 'train.parquet'}]", "test_split=''"]


def text_folder(folder: Path) -> list[str]:
    for k in range(10):
        lines = said(k, 1).splitlines()
        lines[::3] = [f"{line} my PIN is 47{k}1." for line in lines[::3]]
        (folder / f"{k}.txt").write_text("\n".join(lines))
    return [f"path={folder}"]


def text_table(folder: Path) -> list[str]:
    import pandas as pd

    rows = [(f"client {k}", line) for k in range(10) for line in said(k, 1).splitlines()]
    pd.DataFrame(rows, columns=["client", "text"]).to_csv(folder / "texts.csv", index=False)
    return [f"path={folder / 'texts.csv'}"]


def labelled_texts(folder: Path) -> list[str]:
    import pandas as pd

    rows = [(f"client {k}", line, "ab"[i % 2]) for k in range(5) for i, line in enumerate(said(k, 6).splitlines())]
    pd.DataFrame(rows, columns=["client", "text", "label"]).to_csv(folder / "texts.csv", index=False)
    return [f"path={folder / 'texts.csv'}"]


def fetched_model(model: object, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny encoder in the place of the model that is fetched, if one is."""
    if isinstance(model, HuggingFace) and (name := fetched_name(model)):
        monkeypatch.setenv("FEDMEM_CACHE", str(cache))
        folder = save_model(cache / name, "bert", tokenizer="wordpiece", task="encoder")
        sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        monkeypatch.setitem(MODELS, name, replace(MODELS[name], files=sums))


def fetched_name(model: object) -> str:
    """The name of the model that has to be fetched; empty where none has."""
    return model.path if isinstance(model, HuggingFace) and "/" not in model.path else ""


OF_THE_USER = {
    "labelled_texts": labelled_texts,
    "npz": npz,
    "image_folder": pictures,
    "torchvision": torchvision,
    "hub": hub,
    "text_folder": text_folder,
    "text_table": text_table,
}
"""Kinds that read what a user has: writes a little of it and says how to read that."""


def made_data(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Changes with which a scenario reads a few made rows, which are put below the folder."""
    dataset = load_scenario(path).dataset
    kind = families.kind_of(dataset)
    # texts have no rows before they are cut into windows
    rows = hasattr(dataset, "rows")
    if reads_fetched(dataset):
        put_in_cache(kind, folder / "cache", monkeypatch, times=20)
        return ["dataset.rows=1000", "dataset.test=100"] if rows else []
    if kind in OF_THE_USER:
        (folder / "data").mkdir()
        changes = [*(["rows=null", "test=40"] if rows else []), *OF_THE_USER[kind](folder / "data")]
        return [f"dataset.{change}" for change in changes]
    return []


def smaller(path: Path, data: list[str]) -> Scenario:
    """Two rounds of two local steps, as few runs as all estimators allow, a little data; everything else as it is."""
    full = load_scenario(path)
    runs = full.twins * max(8, *(needs_of(estimator).min_runs for estimator in full.estimators), 0)
    changed = [
        "rounds=2",
        f"runs={runs if full.estimators or full.injections else min(full.runs, runs)}",
        "client.epochs=1" if full.central else "client.steps=2",
        "observe.every=2",
        "observe.rounds=[]",
        "bootstrap=20",
        "references=50",
        "speed.workers=1",
    ]
    declared = [estimator_declaration(estimator) for estimator in full.estimators]
    follows = any(signal_declaration(signal).needs_every_round for signal in full.signals)
    if follows or any(one.needs_even_rounds or one.needs_every_round for one in declared):
        changed += ["observe.every=1"]
    changed += [] if full.phases[0].save.models is None else ["save.models.rounds=[-1]"]
    changed += [f"signals[{position}].every=null" for position in range(len(full.signals))]
    if families.kind_of(full.model) == "small_vit":
        changed += ["model.width=8", "model.layers=1"]
    texts = hasattr(full.dataset, "max_chars")
    if texts:
        # the fewest that copies and population leave enough windows of
        changed += ["dataset.max_chars=1500", f"population={min(full.population, 40)}"]
    changed += data
    is_attacked = any(families.kind_of(probe) == "leakage" for probe in full.probes)
    injections: tuple[Any, ...] = full.injections
    for position, injection in enumerate(injections):
        place = f"injections[{position}]"
        if injection_declaration(injection).takes_held:
            continue  # rows and secrets that the data have, as they are
        changed += [f"{place}.start=2"] if injection.start is not None else []
        changed += [f"{place}.stop=1"] if injection.stop is not None else []
        changed += [f"{place}.copies=2"] if texts and injection.copies > 2 else []
        # enough of each kind in all; an attacked client needs all of its own
        least = max(2, 20 // full.clients)
        many = (getattr(injection, "per_client", None) or 0) > least and not is_attacked
        changed += [f"{place}.per_client={least}"] if many else []
        if "{digits:" in (template := getattr(injection, "template", "")):
            # candidates are ranked one by one
            changed += [f"{place}.template={json.dumps(re.sub('{digits:.}', '{digits:2}', template))}"]
    for position, estimator in enumerate(full.estimators):
        changed += [f"estimators[{position}].halvings=2"] if hasattr(estimator, "halvings") else []
    for position, probe in enumerate(full.probes):
        changed += [f"probes[{position}].every=null"]
        if families.kind_of(probe) == "leakage":
            changed += [f"probes[{position}].victims=1", f"probes[{position}].runs=2"]
            changed += (
                [f"probes[{position}].attack.steps=5"] if hasattr(instance(probe, Leakage).attack, "steps") else []
            )
        if families.kind_of(probe) == "extraction":
            changed += [f"probes[{position}].calls=100"]
    return load_scenario(path, changed)


def check_first_screen(summary: RunSummary, page: Path) -> None:
    """It has at most 16 lines, none wider than the terminal but that of the report, and both sentences."""
    for width in (80, 120, 10_000):
        *lines, last = [text for text, _ in FirstScreen(summary=summary, page=page).lines(width)]
        assert len(lines) < 16
        assert max(map(len, lines)) <= width
        assert last == f"Report: {page}"
        screen = " ".join(" ".join(lines).split())
        assert all(verdict.text in screen or verdict.short in screen for verdict in summary.verdicts)


@every_scenario
def test_finishes_two_rounds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "flower_partition" and importlib.util.find_spec("flwr_datasets") is None:
        pytest.skip("flwr_datasets, of the extra partitioners, is not installed")
    data = made_data(path, tmp_path, monkeypatch)
    if former := pretrained(load_scenario(path)):
        source = run(smaller(former, made_data(former, tmp_path, monkeypatch)), out=tmp_path / "runs")
        data += [f"initial_weights.from={source}"]
    fetched_model(load_scenario(path).model, tmp_path / "cache", monkeypatch)
    scenario = smaller(path, data)
    finished = fedmem.read(run(scenario, out=tmp_path / "runs"))
    check_first_screen(finished.summary(), finished.path / "report.html")
    frame = finished.measurements
    measured = frame[frame.value.notna()]
    private = spending.of_scenario(scenario) or isinstance(scenario.client, PrivateAlgorithm)
    promised = {spending.SOURCE} if private else set()
    assert set(measured.source) == {
        *sources(scenario.probes),
        *map(families.kind_of, scenario.estimators),
        # one that only stores values for others has no rows
        *(families.kind_of(signal) for signal in scenario.signals if measures_of(signal)),
        *promised,
    }
    assert (frame.n >= 0).all()
