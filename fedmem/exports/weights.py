"""The last saved aggregate of a run as a file of weights."""

from __future__ import annotations

from pathlib import Path

from fedmem.contracts.export import ExportContent
from fedmem.errors import RunError


class Weights:
    """The aggregate of run 0 after the last saved round as `model.safetensors`, with frozen parameters and buffers.

    Names are those of the network. `initial_weights: {from: …}` of a scenario reads the file, and so does
    `load_state_dict` of a network of the same architecture.
    """

    extra = ""
    package = ""
    has_tables = True
    open_with = "fedmem run FILE 'initial_weights={{from: {folder}/model.safetensors}}'"

    def write(self, content: ExportContent, folder: Path, place: Path) -> None:
        """Writes the file."""
        from safetensors.torch import save_file

        if content.weights is None:
            raise RunError(f"{content.title} is a study of several runs; export the folder of one of them")
        weights = {name: value.contiguous() for name, value in content.weights().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
