"""Virtual environments for the peers, made where they are missing, beside this file and ignored by git."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / ".venvs"


class Unavailable(Exception):
    """A peer cannot be had here; the text says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What to install for a peer; `forced` goes in without its dependencies, and whatever Python it asks for."""

    name: str
    packages: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()

    def python(self) -> str:
        """The interpreter, once everything is installed.

        The environment looks into the one that runs the benchmark for whatever it lacks itself, so that torch and numpy
        are the same for everyone, and not installed again. Errors: `Unavailable`.
        """
        folder = FOLDER / self.name
        python, done = folder / "bin" / "python", folder / "installed.txt"
        wanted = "\n".join((*self.packages, *self.forced))
        if not done.is_file() or done.read_text() != wanted:
            _call([sys.executable, "-m", "venv", "--clear", str(folder)])
            own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
            (Path(own) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            if self.packages:
                _call([*install, *self.packages])
            if self.forced:
                _call([*install, "--no-deps", "--ignore-requires-python", *self.forced])
            done.write_text(wanted)
        return str(python)


PEERS = {
    environment.name: environment
    for environment in (
        Environment(name="pfl", packages=("pfl==0.6.0",)),
        Environment(name="fedlab", packages=("fedlab==1.3.0",)),
        # asks for Python 3.12, and runs on 3.11
        Environment(name="blazefl", packages=("tqdm",), forced=("blazefl==2.0.3",)),
        # its last release calls jax.tree_map, which later versions of jax no longer have
        # without the text and image data sets that it asks for, which gradient inversion has no use for
        Environment(name="breaching", packages=("hydra-core==1.3.8",), forced=("breaching==0.1.2",)),
        Environment(name="fedjax", packages=("fedjax==0.0.17", "jax<0.5", "jaxlib<0.5")),
    )
}


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Unavailable(lines[-1] if lines else f"{command[2]} failed")
