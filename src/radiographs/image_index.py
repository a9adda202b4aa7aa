"""Which files below a folder are radiographs, and what they are called: one rule for all commands.

Every file counts, of any name, ending and depth, except hidden ones (`.DS_Store`, `._p00.dcm`) and
those in hidden folders. Links are followed; each folder is listed once, so that a loop of links
ends. What cannot be used is kept with its cause: broken links, pipes, sockets, devices, folders
that cannot be read, and names that are no text.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from src.radiographs.codestreams import PNG_MAGIC
from src.system.errors import InputError
from src.system.records import cut_text

JPEG_MAGIC = b"\xff\xd8\xff"
DICOM_MAGIC, DICOM_MAGIC_PLACE = b"DICM", 128
N_NAMED = 3  # of what is left out, in the warning


class ImageFile(NamedTuple):
    """A file and the name that its boxes go by."""

    id: str
    path: Path


class UnreadableFile(NamedTuple):
    """A file that gives no radiograph, and why: a sentence that names it."""

    path: Path
    cause: str


@dataclass(frozen=True)
class ImageIndex:
    """The image files below a folder.

    Attributes:
        root: the folder.
        names: paths below it with POSIX separators, sorted.
        left_out: what lies there too, but cannot be used.
    """

    root: Path
    names: tuple[str, ...]
    left_out: tuple[UnreadableFile, ...] = ()

    def files(self) -> list[ImageFile]:
        """Return all files; their ids are their paths below the folder."""
        return [ImageFile(as_text(name), self.root / name) for name in self.names]

    def group(self, named: Collection[str] = ()) -> dict[str, list[str]]:
        """Return the files of each id.

        Of several files for one id, those that do not begin as an image does are no images of it:
        a text file of the same name may lie beside its image.

        Args:
            named: ids that are known, such as those of labels. A file goes by the first of these
                that is known: its path without ending, its path, its name without ending, its name;
                otherwise by its name without ending.

        Returns:
            Id -> paths below the folder; one path, unless there is a clash.
        """
        known = {_composed(patient): patient for patient in named}
        groups: dict[str, list[str]] = {}
        for name in self.names:
            groups.setdefault(_id_of(name, known), []).append(name)
        for patient, names in groups.items():
            if len(names) > 1:
                groups[patient] = [n for n in names if _begins_as_image(self.root / n)] or names
        return groups

    def names_by_id(
        self, named: Collection[str] = (), *, only_named: bool = False
    ) -> dict[str, str]:
        """Return the file of each id, as `group` tells them.

        Args:
            only_named: leave out the files of all other ids.

        Raises:
            InputError: two files have one id; the message names both.
        """
        groups = self.group(named)
        if only_named:
            wanted = set(named)
            groups = {patient: names for patient, names in groups.items() if patient in wanted}
        for patient, names in groups.items():
            if len(names) > 1:
                raise InputError(f"{self.root}: {describe_clash(patient, names)}")
        return {patient: names[0] for patient, names in groups.items()}

    def warn(self) -> None:
        """Say what is left out, in one warning."""
        if self.left_out:
            first = "; ".join(file.cause for file in self.left_out[:N_NAMED])
            n_more = len(self.left_out) - N_NAMED
            more = f"; and {n_more} more" if n_more > 0 else ""
            warnings.warn(
                f"{self.root}: {len(self.left_out)} files or folders cannot be used and are left "
                f"out: {first}{more}",
                stacklevel=2,
            )


def describe_clash(patient: str, names: list[str]) -> str:
    """Say that two files have one id."""
    first, second = map(cut_text, names[:2])
    return (
        f"{first} and {second} would both be called {cut_text(patient)}; one id has one image file"
    )


def index_images(place: Path) -> ImageIndex:
    """List the image files below a folder, or take a single file.

    Raises:
        InputError: there is no file that can be used, or the folder cannot be read.
    """
    if place.is_file():
        return ImageIndex(place.parent, (place.name,))
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder")
    walk = _Walk(place)
    names = list(walk.find())
    names.sort()
    if any("/" in name for name in names):
        names.sort(key=lambda name: name.split("/"))
    left_out = sorted(walk.left_out)
    if not names:
        found = f" that can be used: {left_out[0].cause}" if left_out else ""
        raise InputError(f"{place}: holds no image files{found}")
    return ImageIndex(place, tuple(names), tuple(left_out))


def as_text(name: str) -> str:
    """Write as escapes what is no text in the name of a file; it may hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


class _Walk:
    """One way through a folder; links to folders come last, so that a folder keeps its own name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[UnreadableFile] = []
        self._folders, self._links = [""], list[str]()
        self._listed: set[tuple[int, int]] = set()  # device and inode of each folder

    def find(self) -> Iterator[str]:
        """Yield the files, as paths below the root."""
        while self._folders or self._links:
            if self._folders:
                yield from self._list(self._folders.pop())
            else:
                self._links.sort(reverse=True)
                yield from self._list(self._links.pop())

    def _list(self, folder: str) -> Iterator[str]:
        """Yield the files of a folder, and remember the folders in it."""
        place = self.root / folder
        try:
            status = place.stat()
            is_new = (status.st_dev, status.st_ino) not in self._listed
            self._listed.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                found = list(entries) if is_new else []
        except OSError as error:
            if not folder:
                raise InputError(f"{place}: cannot be read: {error.strerror}") from error
            self._leave_out(folder, f"cannot be read: {error.strerror}")
            return
        if not is_new:
            self._leave_out(folder, "a link to a folder whose files are listed already")
        for entry in found:
            if not entry.name.startswith("."):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if self._is_image(entry, name):
                    yield name

    def _is_image(self, entry: os.DirEntry[str], name: str) -> bool:
        """Say whether an entry is a file that can be used; remember folders, and what is not."""
        if not entry.name.isascii() and as_text(entry.name) != entry.name:
            self._leave_out(name, "its name is no text")
            return False
        if entry.is_file(follow_symlinks=False):
            return True
        if entry.is_dir(follow_symlinks=False):
            self._folders.append(name)
            return False
        try:
            mode = Path(entry.path).stat().st_mode
        except OSError as error:
            self._leave_out(name, f"a broken link: {error.strerror}")
            return False
        if stat.S_ISDIR(mode):
            self._links.append(name)
        elif not stat.S_ISREG(mode):
            self._leave_out(name, "not a regular file")
        return stat.S_ISREG(mode)

    def _leave_out(self, name: str, cause: str) -> None:
        path = self.root / name
        self.left_out.append(UnreadableFile(path, f"{as_text(str(path))}: {cause}"))


def without_ending(name: str) -> str:
    """Return the name of a file without its ending; a number behind a dot is no ending."""
    stem, dot, ending = name.rpartition(".")
    has_ending = dot and ending and not ending.isdecimal() and "/" not in ending
    return stem if has_ending and stem and not stem.endswith("/") else name


def _id_of(name: str, known: dict[str, str]) -> str:
    """Return what an image is called.

    Args:
        known: ids in the Unicode form in which letters are whole -> as they are written. Names of
            files may be in another form.
    """
    if not known:
        return without_ending(name.rpartition("/")[2])
    found = known.get(without_ending(name))
    if found is not None:  # nearly always
        return found
    own_name = name.rpartition("/")[2]
    for candidate in (without_ending(name), name, without_ending(own_name), own_name):
        found = known.get(_composed(candidate))
        if found is not None:
            return found
    return without_ending(own_name)


def _composed(text: str) -> str:
    """Return a text in the form of Unicode in which a letter with its accents is one sign."""
    return text if text.isascii() else normalize("NFC", text)


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            content = file.read(DICOM_MAGIC_PLACE + len(DICOM_MAGIC))
    except OSError:
        return False
    return content.startswith((PNG_MAGIC, JPEG_MAGIC)) or content.endswith(DICOM_MAGIC)
