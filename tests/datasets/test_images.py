"""Tests of `fedmem/datasets/_images.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.image_folder_helpers import load


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
