"""Pictures from folders: classes, pixels, sizes, and what every mistake is answered with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedmem.contracts.data import Dataset
from fedmem.datasets.image_folder import ImageFolder
from fedmem.errors import ComponentError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of five plain pictures, class and number told by their grey level."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(5):
            level = 100 * label + number
            Image.fromarray(np.full((10, 14), level, np.uint8)).save(tmp_path / "all" / name / f"{number}.png")
    (tmp_path / "all" / ".thumbnails").mkdir()
    (tmp_path / "all" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "all"


def load(folder: Path, **fields: Any) -> Dataset:
    return ImageFolder(path=str(folder), **fields).load(np.random.default_rng(0))


def test_every_picture_has_its_class_its_number_and_its_pixels(pictures: Path) -> None:
    data = load(pictures, size=8)
    for rows in (data.train, data.test):
        assert rows.inputs.shape[1:] == (1, 8, 8)
        levels = rows.inputs[:, 0, 4, 4] * 255
        np.testing.assert_allclose(levels, 100 * rows.targets + rows.ids % 5, atol=1e-4)
        assert (rows.targets == rows.ids // 5).all()
    assert np.bincount(data.test.targets).tolist() == [1, 1]


def test_the_middle_is_kept_and_left_stays_left(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        picture = np.zeros((4, 8, 3), np.uint8)
        picture[:, 2:4, 0] = 255  # left half of the middle square is red
        picture[:, :2, 1] = 255  # green is outside of it
        for number in range(2):
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")
    inputs = load(tmp_path, size=4, colours="rgb", test=1).train.inputs
    assert inputs[0, 0].tolist() == [[1, 1, 0, 0]] * 4
    assert inputs[0, 1:].max() == 0


def test_a_camera_held_sideways_is_turned(pictures: Path) -> None:
    picture = np.zeros((8, 8), np.uint8)
    picture[0] = 255
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the first row becomes the last column
    image.save(pictures / "dog" / "9.png", exif=exif)
    data = load(pictures, size=8)
    rows = data.train if 10 in data.train.ids else data.test
    turned = rows.inputs[rows.ids == 10][0, 0]
    assert turned[:, -1].min() == 1
    assert turned[:, :-1].max() == 0


def test_test_pictures_of_their_own(pictures: Path, tmp_path: Path) -> None:
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
