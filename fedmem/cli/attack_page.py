"""The page of `fedmem attack`: what came of it first, then every image, the settings, limits and how to cite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.example_browser import victims
from fedmem.reporting.rendering import render

LIMITS = (
    "An attack is a lower limit: what it does not reconstruct may still be in the update.",
    "Without true inputs nothing says whether a reconstruction is right; without a gallery, nothing says whether it is "
    "nearer than other inputs are.",
    "The baseline guess is picked by the truth, which favours it: a gain below 0 does not mean that nothing leaked.",
)


def attack_page(lines: Sequence[str], rows: Sequence[ImageRow], settings: Mapping[str, Any], *, total: int) -> bytes:
    """The page of one attack.

    Args:
        lines: What was granted and found, in sentences, as the command prints them.
        rows: The images that are shown.
        settings: All that `attack.json` holds, which the page prints.
        total: How many images there are.
    """
    granted, *outcome = lines or ("",)
    versions = settings.get("versions") or {}
    shown = f" The first {len(rows)} of {total}, not the best ones." if len(rows) < total else ""
    values: dict[str, Any] = {
        "title": "What the update leaks",
        "place": "",
        "eyebrow": "fedmem report · attack",
        "headline": _sentence(granted),
        "alarms": [line for line in outcome if line.startswith("WARNING: ")],
        "warnings": (),
        "verdict": [_sentence(line) for line in outcome if not line.startswith("WARNING: ")],
        "limits_of_verdict": (),
        "sheets": [
            {
                "title": "Images",
                "subtitle": f"Each with its true image and the best guess without the update, where known.{shown}",
                "groups": list(victims({"": rows})),
            }
        ],
        "texts": (),
        "written": (),
        "settings": json.dumps(settings, indent=2, ensure_ascii=False),
        "limits": LIMITS,
        "citation": f"fedmem, version {versions.get('fedmem', 'unknown')}. Attack on an update; settings and hashes of "
        "its files are in attack.json.",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version),
        "footer": "Files: reconstruction.npz, attack.json, sheet.png. This page loads nothing from elsewhere.",
        "contents": ("Reconstructions", "Methods and limits", "How to cite"),
    }
    return render("attack.html", **values)


def _sentence(line: str) -> str:
    """A printed line as a sentence."""
    return f"{line[:1].upper()}{line[1:].rstrip('.')}." if line else ""
