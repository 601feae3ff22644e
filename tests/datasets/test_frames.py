"""Tables are read as they are, and what is no table is refused with its line."""

from pathlib import Path

import pandas as pd
import pytest

from fedmem.datasets._frames import read_frame
from fedmem.errors import ComponentError, ScenarioError


def test_cells_are_those_of_the_file_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffname,says\nada," two\nlines, ""quoted"""\n\nben, x \n', encoding="utf-8")
    frame = read_frame(str(tmp_path / "a.csv"), "dataset.path")
    assert frame.columns["says"].tolist() == [' two\nlines, "quoted"', " x "]
    assert [frame.place(row).split(" of ")[0] for row in (0, 1)] == ["row 0 (line 3)", "row 1 (line 5)"]
    stripped = read_frame(str(tmp_path / "a.csv"), "dataset.path", strip=True)
    assert stripped.columns["says"].tolist() == ['two\nlines, "quoted"', "x"]


def test_parquet_and_csv_of_one_table_are_equal(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"age": [3.0, None, 5.0], "share": [0.1, 1e-20, None], "sex": ["f", None, "m"], "old": [1, 0, 1]}
    )
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("age,share,sex,old\n3,0.1,f,1\n,1e-20,,0\n5,,m,1\n")
    first, second = (read_frame(str(tmp_path / name), "dataset.path") for name in ("a.parquet", "a.csv"))
    assert {name: cells.tolist() for name, cells in first.columns.items()} == {
        name: cells.tolist() for name, cells in second.columns.items()
    }
    assert first.place(1) == f"row 1 of {tmp_path}/a.parquet"


@pytest.mark.parametrize(
    ("content", "path", "said"),
    [
        (b"", "dataset.path", "is empty"),
        (b"a,b\n", "dataset.path", "has a header, but no row"),
        (b"a,b\n1,2\n1\n", "dataset.path", "has 1 cell in line 3, but 2 columns"),
        (b"a,b\n1,2,3\n", "dataset.path", "has 3 cells in line 2, but 2 columns"),
        (b"a,a\n1,2\n", "dataset.path", "several columns 'a'"),
        (b"a,\n1,2\n", "dataset.path", "column 2 of .* has no name"),
        (b"a;b;c\n1;2;3\n", "dataset.separator", 'write `separator: ";"`'),
        (b"a\tb\n1\t2\n", "dataset.separator", r'write `separator: "\\t"`'),
        (b"a,b\nx,2\n\xe9,1\n", "dataset.path", "is not utf-8 at byte 8, in line 3; .*cp1252"),
        (b'a,b\n1,2\n1,"x\n1,2\n', "dataset.path", "cannot be read from line 3 on .*close each quote"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, content: bytes, path: str, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ComponentError, match=said) as caught:
        read_frame(str(tmp_path / "a.csv"), "dataset.path")
    assert caught.value.path == path


def test_other_separators_and_encodings_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("name;size\nJosé;1,5\n".encode("cp1252"))
    frame = read_frame(str(tmp_path / "a.csv"), "dataset.path", separator=";", encoding="cp1252")
    assert {name: cells.tolist() for name, cells in frame.columns.items()} == {"name": ["José"], "size": ["1,5"]}
    (tmp_path / "a.csv").write_text("name;size\nJo;1,5\n")
    with pytest.raises(ComponentError) as caught:
        read_frame(str(tmp_path / "a.csv"), "dataset.path", separator=";;")
    assert caught.value.path == "dataset.separator"
    with pytest.raises(ComponentError) as caught:
        read_frame(str(tmp_path / "a.csv"), "dataset.path", encoding="klingon")
    assert caught.value.path == "dataset.encoding"


def test_ten_bad_lines_are_reported_and_the_rest_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for bad in (2, 10, 14):
        file.write_text("a,b\n1,2\n" + "1\n" * bad)
        with pytest.raises(ScenarioError) as caught:
            read_frame(str(file), "dataset.path")
        messages = [problem.message for problem in caught.value.problems]
        assert [f"in line {line}," in message for line, message in zip(range(3, 13), messages, strict=False)] == (
            [True] * min(bad, 10)
        )
        assert messages[10:] == (["… and 4 more mistakes"] if bad == 14 else [])
