"""Sheets of reconstructions: original, reconstruction and baseline guess of the first victims, drawn side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmem.contracts.reconstruction_sheet import ReconstructionSheet, read_reconstruction_sheets
from fedmem.modalities.modality import Modality, of_kind
from fedmem.reporting import drawing
from fedmem.reporting.cells import number
from fedmem.reporting.measures import label_title
from fedmem.results.folder import put
from fedmem.results.read import Run, read

_PER_KIND = 3
"""Victims of each kind and view on a sheet."""

_LEVELS = ("local", "sum", "global")


def write_sheets(folder: Path | str) -> list[Path]:
    """Draws the sheet of every probe that stored images into the folder of a finished run, if there are any."""
    run = read(folder)
    written = []
    for name, (data, _) in sheets(run).items():
        written.append(run.path / f"{name}.png")
        put(written[-1], data)
    return written


@dataclass(frozen=True, kw_only=True)
class VictimSheet:
    """The victims of one probe, in groups by what the attacker sees."""

    name: str
    title: str
    subtitle: str
    caption: str
    groups: Mapping[str, Sequence[drawing.ImageRow]]


def sheets(run: Run) -> dict[str, tuple[bytes, str]]:
    """PNG and description of the sheet of each probe that reconstructed images, by the name of its file."""
    return {
        sheet.name: (drawing.sheet(sheet.title, sheet.groups, sheet.subtitle), sheet.caption)
        for sheet in victim_sheets(run)
    }


def victim_sheets(run: Run) -> Iterator[VictimSheet]:
    """The sheet of each probe that reconstructed images.

    A sheet shows the last round that a probe attacked, view by view. It has the first victims of each kind, not the
    best ones. Each victim has its number, whether it was identified, and the margin over the baseline guess.
    """
    found = [sheet for sheet in read_reconstruction_sheets(run.reconstructions()) if "original" in sheet.columns]
    kinds = tuple(dict.fromkeys(run.audit["kind"].tolist()))
    for place, source in enumerate(dict.fromkeys(sheet.source for sheet in found), 1):
        of_source = [sheet for sheet in found if sheet.source == source]
        modality = of_kind(str(of_source[0].columns["modality"][0]))
        round_number, groups = _groups(of_source, kinds, modality)
        subtitle = (
            f"The first victims of each kind, not the best ones. {modality.unit}: {modality.similarity.upper()} of the "
            "reconstruction − of the baseline guess, which is picked by the truth. Identified: a reconstruction is "
            "nearer to the victim than any is to its gallery."
        )
        name, whose = ("reconstructions", "") if place == 1 else (f"reconstructions_{place}", f" ({source})")
        yield VictimSheet(
            name=name,
            title=f"reconstruction of audit examples from updates, round {round_number}{whose}",
            subtitle=subtitle,
            caption=f"Originals, reconstructions and baseline guesses{whose}",
            groups=groups,
        )


def _groups(
    found: Sequence[ReconstructionSheet], order: Sequence[str], modality: type[Modality]
) -> tuple[int, dict[str, list[drawing.ImageRow]]]:
    """The last round that a probe attacked, and for each view its first victims of each kind."""
    last = max(sheet.round for sheet in found)
    of_round = [sheet for sheet in found if sheet.round == last]
    places = sorted({(sheet.level, sheet.view) for sheet in of_round}, key=_place)
    groups, level_key = {}, modality.similarity
    for level, view in places:
        runs = sorted((one for one in of_round if (one.level, one.view) == (level, view)), key=lambda one: one.run)
        column = {
            key: np.concatenate([one.columns[key] for one in runs])
            for key in (
                "original",
                "reconstruction",
                "prior",
                "kind",
                level_key,
                f"prior_{level_key}",
                "subject",
                "identified",
            )
        }
        gains = column[level_key] - column[f"prior_{level_key}"]
        kinds = column["kind"].tolist()
        victims = [i for kind in order for i in [j for j, row_kind in enumerate(kinds) if row_kind == kind][:_PER_KIND]]
        groups[f"{level}: from {_view_title(view)}"] = [
            drawing.ImageRow(
                original=column["original"][i],
                reconstruction=column["reconstruction"][i],
                prior=column["prior"][i],
                label=f"{kinds[i]}\n#{column['subject'][i]}",
                caption=_came_of(float(column["identified"][i]), float(gains[i]), modality.unit),
                draw=modality.draw,
                pixels=modality.pixels,
            )
            for i in victims
        ]
    return last, groups


def _place(place: tuple[str, str]) -> tuple[int, str, int]:
    """Levels from the client to the aggregate, and within a level views by name, smaller sums first."""
    view, _, size = place[1].rpartition("_")
    return _LEVELS.index(place[0]), view, int(size) if size.isdigit() else 0


def _view_title(view: str) -> str:
    """A view in words."""
    kind, _, size = view.rpartition("_")
    return f"the {kind} of {size} clients" if size.isdigit() else label_title("view", view)


def _came_of(is_identified: float, gain_over_prior: float, unit: str) -> str:
    """Whether a victim was identified, where that was asked, and the gain over the baseline guess with its sign."""
    text = number(gain_over_prior, 1)
    gain = f"{text if text.startswith('−') or not gain_over_prior > 0 else f'+{text}'} {unit}".strip()
    return gain if math.isnan(is_identified) else f"{gain}\n{'identified' if is_identified else 'not identified'}"
