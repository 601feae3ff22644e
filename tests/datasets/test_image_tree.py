"""Every file of a folder of images has a class and a client, or is named."""

from pathlib import Path

import pytest

from fedmem.datasets.image_folder import ImageFolder
from fedmem.errors import ComponentError, ScenarioError
from tests.datasets.image_folder_helpers import load
from tests.narrowing import present


def test_clients_come_from_a_table(pictures: Path) -> None:
    table = pictures / "owners.csv"
    rows = [f"{label}/{i}.png,c{i % 2}" for label in ("dog", "cat") for i in range(5)]
    table.write_text("\n".join(["file,client", *rows]))
    data = load(pictures, clients=str(table), size=8)
    assert data.client_names == ("c0", "c1")
    assert present(data.natural).tolist() == (data.train.ids % 5 % 2).tolist()
    assert table in ImageFolder(path=str(pictures), clients=str(table)).input_files()
    for lines, said in (
        (rows[1:], "no row for the image 'dog/0.png'"),
        ([*rows, "cat/9.png,c0"], r"row 10 \(line 12\) of .*no image 'cat/9.png'"),
        ([*rows, "cat/1.png,c0"], "has a row already"),
        ([*rows[1:], "dog/0.png,"], "names no client"),
    ):
        table.write_text("\n".join(["file,client", *lines]))
        with pytest.raises(ComponentError, match=said) as caught:
            load(pictures, clients=str(table))
        assert caught.value.path == "dataset.clients"
    table.write_text("\n".join(["file,client", *rows[1:], "cat/9.png,c0", "cat/1.png,c1"]))
    with pytest.raises(ScenarioError) as together:
        load(pictures, clients=str(table))
    assert len(together.value.problems) == 3


@pytest.mark.parametrize("name", ["cat/notes.txt", "cat/1.svg", "labels.csv", "stray.png", "cat/more/1.png"])
def test_a_file_that_is_no_image_of_a_class_is_named(pictures: Path, name: str) -> None:
    (pictures / name).parent.mkdir(exist_ok=True)
    (pictures / name).write_bytes((pictures / "cat" / "0.png").read_bytes())
    with pytest.raises(ComponentError, match=Path(name).parts[-1] if "more" not in name else "more is a folder"):
        load(pictures)
