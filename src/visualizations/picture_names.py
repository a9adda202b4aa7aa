"""Names for the pictures of image files: safe for every file system, and no two the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

PICTURE_ENDING = ".png"
MAX_NAME = 200  # bytes; file systems take 255, and a name grows while its file is written
MAX_PATH = 1000  # bytes below the folder of the pictures; operating systems take 4096 in all


def picture_names(files: Sequence[str], *, taken: Iterable[str] = ()) -> list[str]:
    """Name a picture after each file, in the same folders: `<file>.png`.

    A name that is too long is cut and carries a digest of the whole one; characters that cannot be
    shown become "_"; where a name is taken, by a folder too, a number follows it.

    Args:
        files: paths, with POSIX separators.
        taken: names that no picture may have.

    Returns:
        Paths below the folder of the pictures, with POSIX separators.
    """
    paths = [_safe_path(file) for file in files]
    folders = {"/".join(path[:i]) for path in paths for i in range(1, len(path))}
    used = {name.casefold() for name in (*folders, *taken)}  # some file systems know no cases
    names = []
    for *folder, stem in paths:
        place = "/".join([*folder, stem])
        name, n = f"{place}{PICTURE_ENDING}", 1
        while name.casefold() in used:
            n += 1
            name = f"{place}-{n}{PICTURE_ENDING}"
        used.add(name.casefold())
        names.append(name)
    return names


def _safe_path(file: str) -> list[str]:
    parts = [_safe_name(part) for part in file.split("/")]
    if len("/".join(parts).encode()) <= MAX_PATH:
        return parts
    return [f"{parts[-1]}-{_digest(file)}"]


def _safe_name(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else "_" for letter in name)
    if len(shown.encode()) <= MAX_NAME:
        return shown
    return f"{shown.encode()[:MAX_NAME].decode(errors='ignore')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
