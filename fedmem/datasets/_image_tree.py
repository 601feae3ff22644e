"""The files of a folder of images: which class and which client each belongs to, and nothing passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmem.datasets._frames import raise_problems, read_frame
from fedmem.errors import ComponentError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r"}
"""Names of files that file managers leave in folders, in small letters."""


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One image.

    Attributes:
        file: Where it is.
        name: Its path below the folder, with slashes.
        label: The name of its class, which is that of its folder.
        client: The folder of its client; empty where folders are no clients.
    """

    file: Path
    name: str
    label: str
    client: str = ""


def image_files(place: str, key: str, *, by_client: bool, skip: Sequence[Path] = ()) -> list[ImageFile]:
    """The images in `place/class/`, or with `by_client` in `place/client/class/`, sorted by path.

    Names that start with a dot, and files of file managers (Thumbs.db, desktop.ini, __MACOSX), are passed over.

    Args:
        place: The folder.
        key: The YAML key that named it, for messages.
        by_client: Whether the first level of folders are clients.
        skip: Files that lie there for another purpose.

    Errors: `ComponentError` where there is no such folder, or fewer than two classes. Also for a class folder without
    an image, a file that is no image by its ending, or a folder too many.
    """
    root = Path(place).expanduser()
    if not root.is_dir():
        raise ComponentError(key, f"there is no folder {root} (looked for from {Path.cwd()})")
    skipped = {file.absolute() for file in skip}
    images: list[ImageFile] = []
    owners = _folders(root, key, "client", skipped) if by_client else [root]
    for owner in owners:
        folders = _folders(owner, key, "class", skipped)
        if not by_client and len(folders) < 2:
            message = f"{root} has {len(folders)} folders, but should have one for each of at least two classes"
            raise ComponentError(key, f"{message}; {_LAYOUT[by_client]}")
        for folder in folders:
            class_images = [
                ImageFile(
                    file=file,
                    name=file.relative_to(root).as_posix(),
                    label=folder.name,
                    client=owner.name if by_client else "",
                )
                for file in _images(folder, key, skipped, by_client=by_client)
            ]
            if not class_images:
                message = (
                    f"class {folder.name!r} has no image ({', '.join(SUFFIXES)}) in {folder}; add some, or remove it"
                )
                raise ComponentError(key, message)
            images += class_images
    classes = {image.label for image in images}
    if len(classes) < 2:
        message = f"{root} has {len(owners)} clients with {len(classes)} classes, but should have at least two classes"
        raise ComponentError(key, f"{message}; {_LAYOUT[by_client]}")
    return images


_LAYOUT = {False: "images lie in path/class/image.png", True: "images lie in path/client/class/image.png"}


def all_files(place: str) -> list[Path]:
    """Every visible file below a folder, whatever it is, sorted; the folder itself where it is missing or empty."""
    root = Path(place).expanduser()
    return sorted(file for file in _walk(root) if file.is_file()) if root.is_dir() else [root]


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if _is_visible(entry):
            yield entry
            if entry.is_dir():
                yield from _walk(entry)


def clients_of(images: Sequence[ImageFile], table: str) -> list[str]:
    """The client of each image, from a table with the columns `file` (its path below the folder) and `client`.

    Errors, all together: where an image has no row or two, a row has no image, or a client is missing.
    """
    key = "dataset.clients"
    frame = read_frame(table, key, strip=True)
    files, owners = frame.column("file", "clients"), frame.column("client", "clients")
    names = {image.name for image in images}
    client_by_name: dict[str, str] = {}
    wrong: list[str] = []
    for row, (file, owner) in enumerate(zip(files, owners, strict=True)):
        name = str(file).replace("\\", "/").removeprefix("./")
        if name not in names:
            wrong.append(f"{frame.place(row)}: there is no image {file!r}; write paths such as {images[0].name!r}")
        elif name in client_by_name:
            wrong.append(f"{frame.place(row)}: {file!r} has a row already; remove one")
        elif not owner:
            wrong.append(f"{frame.place(row)} names no client for {file!r}; fill its cell")
        client_by_name[name] = str(owner)
    wrong += [
        f"{table} has no row for the image {image.name!r}; add one with its client"
        for image in images
        if image.name not in client_by_name
    ]
    raise_problems([(key, message) for message in wrong])
    return [client_by_name[image.name] for image in images]


def _folders(parent: Path, key: str, what: str, skipped: set[Path]) -> list[Path]:
    """The folders in a folder, sorted; a file among them is an error."""
    folders = []
    for entry in sorted(parent.iterdir()):
        if not _is_visible(entry) or entry.absolute() in skipped:
            continue
        if not entry.is_dir():
            raise ComponentError(
                key, f"{entry} lies in no {what} folder; move it into one if it is an image, or remove it"
            )
        folders.append(entry)
    return folders


def _images(folder: Path, key: str, skipped: set[Path], *, by_client: bool) -> list[Path]:
    """The images in the folder of a class, sorted; anything else is an error."""
    images = []
    for entry in sorted(folder.iterdir()):
        if not _is_visible(entry) or entry.absolute() in skipped:
            continue
        if entry.is_dir():
            advice = "" if by_client else "; if the first folders are clients, write `clients: folder`"
            raise ComponentError(key, f"{entry} is a folder in the folder of a class; {_LAYOUT[by_client]}{advice}")
        if entry.suffix.lower() not in SUFFIXES:
            message = f"{entry} is no image by its ending ({', '.join(SUFFIXES)}); remove it, or convert it"
            raise ComponentError(key, message)
        images.append(entry)
    return images


def _is_visible(entry: Path) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in _LITTER
