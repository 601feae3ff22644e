"""Pictures from folders: classes, pixels, sizes, and what every mistake is answered with."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmem.errors import ComponentError, ScenarioError
from tests.datasets.image_folder_helpers import load
from tests.narrowing import present


def test_every_image_keeps_its_class_number_and_pixels(pictures: Path) -> None:
    data = load(pictures, size=8)
    for rows in (data.train, data.test):
        assert rows.inputs.shape[1:] == (1, 8, 8)
        levels = rows.inputs[:, 0, 4, 4] * 255
        np.testing.assert_allclose(levels, 100 * rows.targets + rows.ids % 5, atol=1e-4)
        assert (rows.targets == rows.ids // 5).all()
    assert np.bincount(data.test.targets).tolist() == [1, 1]


def test_test_images_load_from_their_own_folder(pictures: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "held" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 250).save(tmp_path / "held" / name / "x.jpg")
    data = load(pictures, test_path=str(tmp_path / "held"), size=8)
    assert (len(data.train), data.test.ids.tolist(), data.test.targets.tolist()) == (10, [10, 11], [0, 1])
    assert data.test.inputs.min() > 0.95


def test_mistakes_are_answered_with_their_remedy(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="there is no folder"):
        load(tmp_path / "none")
    with pytest.raises(ComponentError, match="has 1 folders, but should have one for each of at least two classes"):
        load(tmp_path)
    (tmp_path / "held" / "cat").mkdir(parents=True)
    (tmp_path / "held" / "fox").mkdir()
    for name in ("cat", "fox"):
        Image.new("L", (8, 8)).save(tmp_path / "held" / name / "x.png")
    with pytest.raises(ComponentError, match=r"has the classes cat, fox, but .* has cat, dog") as caught:
        load(pictures, test_path=str(tmp_path / "held"))
    assert caught.value.path == "dataset.test_path"
    (pictures / "eel").mkdir()
    with pytest.raises(ComponentError, match="class 'eel' has no"):
        load(pictures)
    (pictures / "eel" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ComponentError, match=r"0\.png cannot be read"):
        load(pictures)
    whole = (pictures / "cat" / "0.png").read_bytes()
    (pictures / "eel" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ComponentError, match=r"0\.png cannot be read"):
        load(pictures)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(pictures / "eel" / "0.png")
    with pytest.raises(ComponentError, match="more than 8 bits a channel"):
        load(pictures)


def test_classes_and_files_keep_their_names(pictures: Path) -> None:
    data = load(pictures, size=8)
    assert data.class_names == ("cat", "dog")
    assert data.columns["file"].tolist() == [f"{('cat', 'dog')[i // 5]}/{i % 5}.png" for i in data.train.ids]
    (said,) = data.decisions
    assert said.startswith("images: 10 grey; 14 to 14 wide, 10 to 10 high; made grey")
    assert "10 smaller ones are enlarged" in load(pictures, size=12).decisions[0]


def test_clients_are_the_first_folders(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "by" / "eva").mkdir(parents=True)
    (pictures / "cat").rename(tmp_path / "by" / "eva" / "cat")
    (tmp_path / "by" / "ada").mkdir()
    shutil.copytree(pictures / "dog", tmp_path / "by" / "eva" / "dog")
    (pictures / "dog").rename(tmp_path / "by" / "ada" / "dog")
    data = load(tmp_path / "by", clients="folder", size=8, test=2)
    assert (data.client_names, data.class_names) == (("ada", "eva"), ("cat", "dog"))
    paths = [file.split("/") for file in data.columns["file"]]
    assert [data.client_names[owner] for owner in present(data.natural)] == [path[0] for path in paths]
    assert [data.class_names[label] for label in data.train.targets] == [path[1] for path in paths]
    with pytest.raises(ComponentError, match="write `clients: folder`"):
        load(tmp_path / "by", size=8)


@pytest.mark.parametrize("lacking", [3, 10])
def test_images_that_lack_a_client_are_named_and_counted(pictures: Path, tmp_path: Path, lacking: int) -> None:
    """Each of them, and from eleven mistakes on ten with the number of others."""
    files = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    rows = [f"{file},ada" for file in files[lacking:]] + ["nowhere.png,ada"] * (lacking == 10)
    table = tmp_path / "clients.csv"
    table.write_text("\n".join(["file,client", *rows]) + "\n")
    with pytest.raises(ScenarioError) as caught:
        load(pictures, size=8, clients=str(table))
    said = [problem.message for problem in caught.value.problems]
    named = [file for file in files[:lacking] if any(repr(file) in message for message in said)]
    assert named == files[: min(lacking, 9 if lacking == 10 else lacking)]
    assert ("… and 1 more mistake" in said) == (lacking == 10)
