"""Tests of `fedmem/injections/existing_secret.py`: secrets that stand in the texts, on files of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.federation import Federation
from fedmem.errors import ComponentError, ScenarioError
from fedmem.execution.run import run
from fedmem.federation import build
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import PADDING, join_windows
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read_bank
from fedmem.scenario.caveats import caveats
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

WIDTH = 25
TEMPLATE = "PIN {digits:3}"


def line(text: str) -> str:
    """A window of exactly this text, filled up with dots."""
    return text.ljust(WIDTH, ".")


def write(folder: Path, texts: dict[str, list[str]]) -> str:
    (folder / "texts").mkdir(exist_ok=True)
    for name, lines in texts.items():
        (folder / "texts" / f"{name}.txt").write_text("".join(map(line, lines)))
    return str(folder / "texts")


def texts(pin: str = "471", other: str = "471") -> dict[str, list[str]]:
    """Two clients of whose windows a quarter holds a PIN; further windows have none."""
    return {
        "ada": [f"my PIN {pin} ok" if i % 4 == 0 else f"words of ada {i}" for i in range(40)],
        "ben": [f"the PIN {other}, yes" if i % 4 == 0 else f"ben wrote {i}" for i in range(40)],
        "cleo": [f"nothing here {i}" for i in range(40)],
    }


def scenario(path: str, *overrides: str, **injection: Any) -> Scenario:
    text = json.dumps(
        {
            "name": "pins",
            "runs": 4,
            "rounds": 1,
            "clients": 3,
            "dataset": {"kind": "text_folder", "path": path, "clients": 3, "length": WIDTH - 1},
            "partition": {"kind": "natural"},
            "population": 0,
            "model": {"kind": "char_rnn", "embedding": 8, "hidden": 16},
            "injections": [{"kind": "existing_secret", "template": TEMPLATE, **injection}],
            "estimators": [{"kind": "exposure"}],
        }
    )
    return parse_scenario(text, name="pins", overrides=list(overrides))


def written(federation: Federation, rows: Any) -> list[str]:
    vocabulary = Vocabulary.of(federation.modality.vocabulary)  # type: ignore[attr-defined]
    tokens = join_windows(federation.store.inputs[rows], federation.store.targets[rows])
    return [vocabulary.decode(row[row != PADDING]) for row in tokens]


def test_all_windows_with_a_secret_are_under_its_coin(tmp_path: Path) -> None:
    federation = build.build(scenario(write(tmp_path, texts())))
    audit = federation.audit
    assert (len(audit), audit.role.tolist()) == (1, ["canary"])
    assert set(audit.owners.tolist()) == {0, 1}
    assert int(audit.owner[0]) in (0, 1)
    for number in range(4):
        holding = [
            sum("PIN 471" in text for text in written(federation, federation.rows(number, client, 1)))
            for client in range(3)
        ]
        held = np.bincount(audit.owners, minlength=3).tolist()
        assert holding == (held if audit.is_in[number, 0] else [0, 0, 0])
        sizes = [len(federation.rows(number, client, 1)) for client in range(3)]
        assert sizes == [len(federation.base[k]) + held[k] for k in range(3)]
    trained = written(federation, federation.trained_rows)
    assert all("PIN 471" in text for text in trained)
    assert not any("PIN 471" in text for rows in federation.base for text in written(federation, rows))


def test_the_secret_that_is_there_is_asked_for(tmp_path: Path) -> None:
    """With another value in the data it is that value, and each different secret is one example."""
    for pin, other in (("471", "471"), ("903", "903"), ("471", "903")):
        federation = build.build(scenario(write(tmp_path, texts(pin, other))))
        vocabulary = Vocabulary.of(federation.modality.vocabulary)  # type: ignore[attr-defined]
        targets = federation.audit.examples.targets
        assert sorted(vocabulary.decode(row[row >= 0]) for row in targets) == sorted({pin, other})


def test_nothing_to_find_is_refused_with_an_example(tmp_path: Path) -> None:
    path = write(tmp_path, texts("4711", "4711"))
    with pytest.raises(ComponentError, match=r"no training window of any client holds 'PIN \{digits:3\}'") as error:
        build.build(scenario(path))
    assert error.value.path == "injections[0].template"
    assert "for example 'PIN " in error.value.message
    assert "texts that begin like the template go on after the last place" in error.value.message
    with pytest.raises(ComponentError, match="its beginning stands in 0 of them"):
        build.build(scenario(path, template="the number {digits:3}"))


def test_check_says_what_matches_and_what_does_not(tmp_path: Path) -> None:
    lines = texts()
    rare = [f"PIN 4{chr(0x4E00 + i)}1 and so on" for i in range(6)]  # each in one window, so most are in no test set
    lines["cleo"] = ["x" * 20 + "PIN 4", "71" + "y" * 20] * 6 + rare + lines["cleo"]
    federation = build.build(scenario(write(tmp_path, lines)))
    notes = " ".join([*federation.notes, *federation.warnings])
    assert "1 different secret is audited" in notes
    assert "that 3 clients hold are audited, and" in notes
    assert "are cut by the end of a window" in notes
    assert "not in the vocabulary" in notes


def test_check_warns_of_other_spellings_and_hides_them(tmp_path: Path) -> None:
    lines = texts()
    lines["cleo"] = ["pin 12 3", "PIN  555", *lines["cleo"]]
    (warning,) = [text for text in build.build(scenario(write(tmp_path, lines))).warnings if "another case" in text]
    assert warning.startswith("existing_secret: 2 texts of clients have the template in another case")
    assert "('PIN  ***', 'pin ** *')" in warning
    assert not set("12355") & set(warning.split("case")[1])
    with pytest.raises(ComponentError, match=r"have the template in another case.*'my PIN \*{3}'"):
        build.build(scenario(write(tmp_path, texts()), template="My PIN {digits:3}"))


def test_secrets_that_share_a_window_are_left_where_they_are(tmp_path: Path) -> None:
    lines = texts()
    lines["cleo"] = [f"PIN 555 PIN {100 + i}" if i < 6 else f"nothing {i}" for i in range(40)]
    federation = build.build(scenario(write(tmp_path, lines)))
    assert any("secrets share a window with another one" in note for note in federation.notes)
    assert len(np.unique(federation.store.ids)) == len(federation.store.ids)
    assert len(build.build(scenario(write(tmp_path, texts("471", "903")), max_secrets=1)).audit) == 1


def test_more_windows_than_can_be_replaced_are_refused(tmp_path: Path) -> None:
    lines = texts()
    lines["ada"] = ["my PIN 471 ok"] * 40
    path = write(tmp_path, lines)
    with pytest.raises(ComponentError, match=r"takes \d+ of the \d+ rows of client 0 \(ada\), at most \d+ are possib"):
        build.build(scenario(path))


@pytest.mark.parametrize("overrides", [["runs=1"], ["injections[0].coins=false"]])
def test_without_coins_the_secret_is_in_in_every_run(tmp_path: Path, overrides: list[str]) -> None:
    federation = build.build(scenario(write(tmp_path, texts()), *overrides))
    assert federation.audit.is_in.all()
    assert (federation.replacement == -1).all()
    assert not federation.counts["replacements"]


@pytest.mark.parametrize("overrides", [["runs=1"], ["injections[0].coins=false"]])
def test_without_coins_nothing_replaces_what_is_forgotten(tmp_path: Path, overrides: list[str]) -> None:
    """Clients would silently lose the rows that `exclusion: replace` promises to replace."""
    path = write(tmp_path, texts())
    then = "then=[{rounds: 2, forget: {kinds: [existing_secret]}}]"
    with pytest.raises(ScenarioError, match=r"then\[0\].forget.kinds\[0\]: .* no replacement rows"):
        scenario(path, *overrides, then)
    with pytest.raises(ComponentError, match="no replacement row for its place"):
        build.build(scenario(path, *overrides, "removed={examples: [0]}"))
    for removal in ("exclusion=remove", "removed.exclusion=remove"):
        shown = build.build(scenario(path, *overrides, "removed={examples: [0]}", removal))
        assert not np.isin(shown.rows(0, 0, 1), shown.trained_rows).any()


def test_comparisons_with_held_out_examples_need_coins(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"injections\[0\].coins: the probe extraction compares with examples"):
        scenario(write(tmp_path, texts()), "injections[0].coins=false", "probes=[{kind: extraction}]")


def running(folder: Path, *, elsewhere: str = "") -> str:
    """Running text of two clients: the PIN stands 11 times in that of the first, often cut by the end of a window."""
    (folder / "texts").mkdir(exist_ok=True)
    sentences = [f"line {chr(97 + i % 26)}{chr(97 + i // 3 % 26)} of the day. " for i in range(90)]
    for i in range(11):
        sentences[8 * i + 1] += f"my PIN 471 {'x' * (5 * i % 13)}. "
    sentences[0] += elsewhere
    (folder / "texts" / "ada.txt").write_text("".join(sentences))
    (folder / "texts" / "ben.txt").write_text("".join(f"ben wrote {chr(97 + i % 26)} again. " for i in range(90)))
    return str(folder / "texts")


PAIR = ("clients=2", "dataset.clients=2", "dataset.min_chars=100")


def test_pieces_of_cut_copies_are_under_the_same_coin(tmp_path: Path) -> None:
    federation = build.build(scenario(running(tmp_path), *PAIR))
    (warning,) = federation.warnings
    assert "copies of secrets are cut by the end of a window; the" in warning
    assert not federation.audit.is_in.all()
    for number in np.flatnonzero(~federation.audit.is_in[:, 0]):
        trained = written(federation, federation.rows(int(number), 0, 1))
        assert not [text for text in trained if any(part in text for part in ("PIN 4", "471"))]
        assert not [text for text in trained if text.startswith(("71 ", "1 "))], "the ends of cut copies are out too"


def test_values_in_another_form_are_warned_of(tmp_path: Path) -> None:
    """Texts that a coin cannot decide about: the table, the report and `fedmem check` say so."""
    said = "He said 471 twice, 471 and 471 too, then 471 once more. Not 4712. "
    full = scenario(running(tmp_path, elsewhere=said), *PAIR)
    federation = build.build(full)
    _, warning = federation.warnings
    assert "the value of a secret without the text of the template before it" in warning
    assert warning in caveats(full, of_injections=federation.warnings)


def test_secret_that_no_client_holds_is_located(tmp_path: Path) -> None:
    """A PIN that stands in the population alone, or is always cut, is no typo."""
    lines = texts()
    lines["cleo"] = ["x" * 20 + "PIN 4", "71" + "y" * 20] * 6 + lines["cleo"]
    path = write(tmp_path, {name: [text.replace("PIN 471 ok", "").replace("PIN 471,", "") for text in some]
                            for name, some in lines.items()})  # fmt: skip
    with pytest.raises(ComponentError, match="are cut by the end of a window") as error:
        build.build(scenario(path))
    assert "compare letters" not in error.value.message
    lines = {
        name: ["my PIN 471 ok" if name == "ada" and i == 7 else f"{name} {i}" for i in range(40)] for name in lines
    }
    path = write(tmp_path, lines)
    with pytest.raises(ComponentError, match="1 window that holds it is in the test set") as error:
        build.build(scenario(path, "dataset.test=0.9"))
    assert "`population: 0`, a lower `dataset.test`" in error.value.message


@pytest.mark.nightly
@pytest.mark.slow
def test_out_runs_of_a_cut_pin_do_not_write_it(tmp_path: Path) -> None:
    full = scenario(
        running(tmp_path),
        *PAIR,
        "rounds=3",
        "model.hidden=48",
        "observe={rounds: [-1]}",
        "client={kind: sgd, lr: 2.0, epochs: 20, batch_size: 4, clip: 1.0}",
        "probes=[{kind: extraction}]",
    )
    frame = fedmem.read(run(full, out=tmp_path)).measurements
    greedy = frame[(frame.metric == "greedy") & frame.run.notna() & (frame.place == "owner") & (frame["round"] == 3)]
    assert greedy[greedy.coin != "out"].value.mean() == 1
    assert greedy[greedy.coin == "out"].value.mean() == 0


@pytest.mark.slow
@pytest.mark.nightly
def test_a_memorised_pin_is_exposed_and_extracted(tmp_path: Path) -> None:
    full = scenario(
        write(tmp_path, texts()),
        "rounds=3",
        "model.hidden=48",
        "client={kind: sgd, lr: 2.0, epochs: 20, batch_size: 4, clip: 1.0}",
        "probes=[{kind: extraction, levels: [local]}]",
    )
    frame = fedmem.read(run(full, out=tmp_path)).measurements
    summary = frame[(frame.scope == "summary") & (frame.level == "local")]
    exposure = summary[(summary.metric == "exposure") & (summary.subject == "existing_secret")].value
    assert exposure.iloc[0] > 9  # log2 of a thousand is 9.97
    single = frame[(frame.metric == "greedy") & frame.run.notna() & (frame.place == "owner") & (frame["round"] == 3)]
    assert len(single)
    assert single[single.coin != "out"].value.mean() == 1
    assert single[single.coin == "out"].value.mean() == 0


def test_a_copy_cut_by_the_end_of_a_text_is_under_the_coin(tmp_path: Path) -> None:
    path = write(tmp_path, {name: [*lines, "x" * 20 + "PIN 4"] for name, lines in texts().items()})
    for file in Path(path).iterdir():
        file.write_text(file.read_text() + "71")  # too short for a window, so that it is left out
    federation = build.build(scenario(path, "seed=1"))  # the end of a text that another one follows is trained on
    assert any(text.endswith("PIN 4") for text in written(federation, federation.trained_rows))
    assert not any(text.endswith("PIN 4") for rows in federation.base for text in written(federation, rows))


def test_a_secret_that_a_person_wrote_has_no_p_of_rank(tmp_path: Path) -> None:
    """With one run there is no p at all, and the stored audit says why."""
    path = write(tmp_path, texts())
    finished = fedmem.read(run(scenario(path, "runs=1"), out=tmp_path / "out"))
    assert read_bank(finished.path).audit.not_uniform == ("existing_secret",)
    found = set(finished.measurements.metric)
    assert "exposure" in found
    assert not found & {"exposure.null", "exposure.p", "exposure_p", "exposure_rejected"}
    assert finished.top(measure="exposure")["p"].isna().all()
    summary = Summary(finished)
    (section,) = [part for part in sections(summary) if part.title == "SINGLE EXAMPLES"]
    assert not any(", p " in cell for _, rows in section.blocks for row in rows for cell in row)
