"""The wheel: what it holds, and that it works by name in an empty folder, away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def copy_sources(target: Path) -> None:
    """The files of the repository, committed or new, without what is ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name, follow_symlinks=False)


def call(folder: Path, *words: str, path: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": path, "FEDMEM_CACHE": str(folder / "no cache")}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is: with the schema, and offline."""
    sources, made = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    copy_sources(sources)
    path = os.pathsep.join([str(sources), os.environ.get("PYTHONPATH", "")])
    steps = (
        ["-m", "fedmem", "schema", "--out", "scenarios/scenario.schema.json"],
        ["-m", "hatchling", "build", "--target", "wheel", "--directory", str(made)],
    )
    for words in steps:
        done = call(sources, *words, path=path)
        assert done.returncode == 0, done.stdout + done.stderr
    (file,) = made.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = call(target, *words, path="")
    assert done.returncode == 0, done.stderr
    return target


def test_wheel_holds_scenarios_schema_data_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {path.name for path in (ROOT / "scenarios").iterdir() if path.suffix in (".yaml", ".csv")}
    assert len(shipped) > 80
    assert {f"fedmem/shipped/scenarios/{name}" for name in {*shipped, "scenario.schema.json"}} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "fedmem/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "scenarios/", "docs/", "experiments/"))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "quickstart", "rounds=2", "runs=8", "probes=[]", "speed.workers=1"], "memorisation"),
        (["check", "own_csv"], "own_csv  ok"),
        pytest.param(
            *(["compare", "quickstart", "rounds=1", "runs=8", "probes=[]", "--seeds", "1", "--quiet"], "compare-"),
            marks=pytest.mark.nightly,
        ),
        pytest.param(["sweep", "mine.yaml", "--quiet"], "sweep-mine", marks=pytest.mark.nightly),
        (["new", "first", "--from", "own_csv"], "scenario.schema.json"),
        (["demo"], "Both controls passed"),
        (["doctor"], "shipped scenarios"),
        (["list", "strategy"], "fedavg"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wheel_works_by_name_in_an_empty_folder(site: Path, tmp_path: Path, words: list[str], said: str) -> None:
    if words[0] == "sweep":
        axes = "{path: client.lr, values: [0.1]}"
        changes = "{rounds: 1, runs: 8, probes: []}"
        (tmp_path / "mine.yaml").write_text(f"{{base: quickstart, set: {changes}, axes: [{axes}]}}")
    done = call(tmp_path, "-m", "fedmem", *words, path=str(site))
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    place = call(tmp_path, "-c", "import fedmem.shipped.files as f; print(f.folder())", path=str(site)).stdout.strip()
    assert place == str(site / "fedmem" / "shipped" / "scenarios")


def test_metadata_name_licence_keywords_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        said = Parser().parsestr(file.read(name).decode("utf-8"))
    assert (said["Name"], said["License-Expression"]) == ("fedmem", "Apache-2.0")
    assert "memorisation" in said["Keywords"]
    assert {"flower", "hub", "search", "torchvision"} <= set(said.get_all("Provides-Extra", []))
    assert said["Description-Content-Type"] == "text/markdown"
    assert str(said.get_payload()).startswith("# fedmem")


@pytest.mark.parametrize(
    "hostile", [pytest.param("strategies.py", marks=pytest.mark.nightly), "strategies/__init__.py"]
)
@pytest.mark.parametrize("place", [pytest.param("current folder", marks=pytest.mark.nightly), "installed"])
def test_foreign_strategies_do_no_harm(hostile: str, place: str, wheel: Path, site: Path, tmp_path: Path) -> None:
    """Beside the scenario, or installed next to fedmem."""
    folder = tmp_path / "installed" if place == "installed" else tmp_path
    if place == "installed":
        shutil.copytree(site, folder)
    (folder / hostile).parent.mkdir(exist_ok=True)
    (folder / hostile).write_text("raise RuntimeError('foreign')")
    words = ["run", "quickstart", "rounds=1", "runs=8", "probes=[]", "strategy.kind=fedmedian", "speed.workers=1"]
    done = call(tmp_path, "-m", "fedmem", *words, path=str(folder if place == "installed" else site))
    assert done.returncode == 0, done.stderr
    assert "memorisation" in done.stdout


def test_wheel_has_each_strategy_once(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if "strategies/" in name]
    assert sorted(names) == sorted(f"fedmem/strategies/{path.name}" for path in (ROOT / "strategies").glob("*.py"))
