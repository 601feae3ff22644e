"""Places from which config, weights and tokenizer of a transformer come: a folder, or the hub and its cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import ComponentError
from fedmem.fetched.models import MODELS, model_folder, verified_folder
from fedmem.modalities.text.tokenizer import FILE

if TYPE_CHECKING:
    from fedmem.models.huggingface import HuggingFace

SECONDS = 5.0
"""The time in which the hub must answer; else its cache alone is read."""


def source_of(model: HuggingFace) -> tuple[str, dict[str, Any]]:
    """Where config and weights come from, and how they are read; the cache alone where the hub does not answer."""
    if model.name:
        if hub_answers(model):
            return model.name, {"trust_remote_code": False, "revision": model.revision or "main"}
        return str(cached_folder(model)), {"trust_remote_code": False, "local_files_only": True}
    folder = verified_folder(model.path) if model.path in MODELS else model_folder(model.path)
    if not (folder / "config.json").is_file():
        message = f"there is no file {(folder / 'config.json').absolute()}; write the folder of a saved model"
        raise ComponentError("model.path", message)
    if model.weights == "pretrained" and not list(folder.glob("*.safetensors")):
        raise ComponentError(
            "model.path",
            f"{folder.absolute()} has no file *.safetensors, and pickles are never read; save the model again by "
            "save_pretrained(FOLDER)",
        )
    return str(folder), {"trust_remote_code": False, "local_files_only": True}


def hub_answers(model: HuggingFace) -> bool:
    """Whether the hub answers one question about a model, also if it refuses.

    Its own downloads would repeat a question without an answer for a minute.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(model.name, revision=model.revision or None, timeout=SECONDS)
    except (HfHubHTTPError, ValueError):  # the download says what is wrong with the name
        return True
    except (httpx.TransportError, OSError):
        return False
    return True


def cached_folder(model: HuggingFace) -> Path:
    """The folder of a model in the cache of the hub. Errors: `ComponentError` if it lacks the config or the weights."""
    from huggingface_hub import snapshot_download

    revision = f" at revision {model.revision}" * bool(model.revision)
    message = f"{model.name}{revision} could not be reached on the hub and is not in the cache"
    message += "; give `path`, a local folder"
    try:
        folder = Path(snapshot_download(model.name, revision=model.revision or "main", local_files_only=True))
    except (OSError, ValueError) as error:
        raise ComponentError("model.name", message) from error
    wanted = ("config.json", *(("*.safetensors",) if model.weights == "pretrained" else ()))
    if not all(list(folder.glob(pattern)) for pattern in wanted):
        raise ComponentError("model.name", message)
    return folder


def tokenizer_file(model: HuggingFace) -> Path | None:
    """The file `tokenizer.json` of a model, if it has one."""
    if model.name:
        from transformers.utils.hub import cached_file

        if hub_answers(model):
            arguments: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
            found = cached_file(model.name, FILE, revision=model.revision or "main", **arguments)
            return Path(found) if found else None
        file = cached_folder(model) / FILE
    else:
        file = model_folder(model.path) / FILE
    return file if file.is_file() else None
