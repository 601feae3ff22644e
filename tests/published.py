"""Small made files that pass for fetched data sets, so that nothing in the default suite needs a network."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.datasets._idx import pack
from fedmem.fetched.files import Published
from fedmem.fetched.sources import Source, Web
from fedmem.scenario import catalogue

ADULTS = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, <=50K",
    "52, Self-emp-inc, 287927, HS-grad, 9, Married-civ-spouse, Exec-managerial, Wife, Black, Female, 15024, 0, 99, "
    "?, >50K",
    "17, ?, 1484705, Preschool, 1, Widowed, ?, Own-child, Other, Female, 0, 4356, 1, Hong, <=50K",
)


def idx_images(rows: int, rng: np.random.Generator) -> bytes:
    return pack(rng.integers(256, size=(rows, 28, 28), dtype=np.uint8))


def idx_labels(rows: int) -> bytes:
    return pack((np.arange(rows) % 10).astype(np.uint8))


SAID = (
    "A little more than kin, and less than kind!",
    "Not so, my lord; I am too much i' the sun.",
    "Ay, madam, it is common.",
    "Seems, madam? Nay, it is; I know not 'seems.'",
    "Who's there? Nay, answer me: stand, and unfold yourself.",
)


def said(who: int, times: int) -> str:
    """Some 4000 characters for each of `times`, of each one others."""
    return "\n".join(f"{SAID[(who + line) % len(SAID)]} {who} {line}" for line in range(90 * times))


def made_files(name: str, times: int = 1) -> dict[str, bytes]:
    """File name -> content, in the format of the published ones; `times` as many rows where few are too few."""
    rng = np.random.default_rng(0)
    if name == "adult":
        return {
            "adult.data": ("\n".join(ADULTS * 20 * times) + "\n\n").encode(),
            "adult.test": (
                "|1x3 Cross validator\n" + "\n".join(line + "." for line in ADULTS * 10 * times) + "\n\n"
            ).encode(),
        }
    if name == "mnist5k":
        return {"images-idx3-ubyte": idx_images(200 * times, rng), "labels-idx1-ubyte": idx_labels(200 * times)}
    if name == "shakespeare":
        return {"roles.json": json.dumps([["play", f"role {k}", said(k, times)] for k in range(24)]).encode()}
    if name == "sotu":
        return {"presidents.json": json.dumps([[f"p {k}", "ABC"[k % 3], said(k, times)] for k in range(24)]).encode()}
    assert name == "fashion_mnist", f"add to tests/published.py how to make files like those of {name}"
    return {
        "train-images-idx3-ubyte": idx_images(120 * times, rng),
        "train-labels-idx1-ubyte": idx_labels(120 * times),
        "t10k-images-idx3-ubyte": idx_images(40 * times, rng),
        "t10k-labels-idx1-ubyte": idx_labels(40 * times),
    }


def pretend(kind: str, monkeypatch: pytest.MonkeyPatch, *sources: Source, times: int = 1) -> Published:
    """Let a data set be the made one, with these sources; nothing is fetched yet."""
    cls: Any = catalogue.load("dataset", kind)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in made_files(kind, times).items()}
    made: Published = replace(cls.published, files=sums, sources=sources, convert=None)
    monkeypatch.setattr(cls, "published", made)
    return made


def on_disk(kind: str, folder: Path, times: int = 1) -> Web:
    """A source that has the made files on this disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made_files(kind, times).items():
        (folder / name).write_bytes(content)
    return Web(description=f"folder {folder.name}", files={name: (folder / name).as_uri() for name in made_files(kind)})


def put_in_cache(kind: str, cache: Path, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> Published:
    """As if it had been fetched into this cache folder, which becomes the one in force."""
    monkeypatch.setenv("FEDMEM_CACHE", str(cache))
    on_disk(kind, cache / kind, times)
    return pretend(kind, monkeypatch, times=times)
