import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from src.datasets import pixel_cache
from src.datasets.pixel_cache import HEAD, PAGE, open_or_build_cache
from src.radiographs.dicom import DicomError, read_pixels
from src.system import processes
from src.system.errors import InputError
from src.system.files import OutputError
from src.system.folder_lock import LOCK_NAME
from tests.dicom_files import write_challenge_dicom, write_dicom
from tests.image_folders import image_folder
from tests.paths import ROOT

PATIENTS = ["a", "b", "c", "deep"]
DEEP = "deep"  # 16 bits
Usage = namedtuple("Usage", "total used free")


def random_pixels(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.fixture
def files(tmp_path):
    """Return a folder of images of several sizes and kinds."""
    folder = tmp_path / "images"
    folder.mkdir()
    write_challenge_dicom(folder / "a.dcm", random_pixels((64, 64)))
    write_challenge_dicom(folder / "b.dcm", random_pixels((30, 200)))
    write_dicom(folder / "c.dcm", random_pixels((65, 64)))
    write_dicom(folder / "deep.dcm", random_pixels((20, 30), np.uint16))
    return image_folder(folder)


@pytest.fixture
def build(files, tmp_path):
    """Return a function that opens or builds the cache of the images."""

    def open_or_build(patients=PATIENTS, n_workers=0):
        return open_or_build_cache(patients, files, tmp_path / "cache", n_workers=n_workers)

    return open_or_build


@pytest.fixture
def n_read(monkeypatch):
    """Return a list that grows when the builder reads an image."""
    paths: list[Path] = []

    def read(path):
        paths.append(path)
        return read_pixels(path)

    monkeypatch.setattr(pixel_cache, "read_any_image", read)
    return paths


def assert_holds_the_files(cache, files):
    for patient in cache.images:
        found, expected = cache.read(patient), files.read(patient)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_NAME)


# What it holds


def test_cache_gives_what_the_files_give(build, files):
    assert_holds_the_files(build(), files)


def test_cache_reads_no_file_for_what_it_holds(build, files):
    cache = build()
    expected = {patient: files.read(patient) for patient in PATIENTS}
    shutil.rmtree(files.images_dir)
    for patient in set(PATIENTS) - {DEEP}:
        np.testing.assert_array_equal(cache.read(patient), expected[patient])


def test_cache_leaves_out_what_is_not_8_bit_and_says_so(build, files, capfd):
    cache = build()
    assert cache.n_left_out == 1
    assert "1 of 4 images are not plain 8-bit" in capfd.readouterr().err
    assert cache.read(DEEP).dtype == np.float32


def test_cache_gives_arrays_of_the_callers_own(build):
    cache = build()
    first = cache.read("a")
    first[:] = 0
    assert cache.read("a").any()


def test_cache_is_built_by_processes_alike(build, files, monkeypatch):
    monkeypatch.setattr(processes, "MIN_FILES", 2)
    cache = build(n_workers=2)
    assert cache.n_left_out == 1
    assert_holds_the_files(cache, files)


def test_cache_travels_without_its_pixels(build, files):
    content = pickle.dumps(build())
    assert len(content) < 1000
    assert_holds_the_files(pickle.loads(content), files)


# Opening it again


def test_cache_is_built_once(build, n_read):
    build()
    assert len(n_read) == len(PATIENTS)
    build(PATIENTS[::-1])
    assert len(n_read) == len(PATIENTS)


def test_caches_of_other_images_lie_side_by_side(build, tmp_path):
    build(), build(PATIENTS[:2])
    assert len(names_in(tmp_path / "cache")) == 2


def test_cache_notices_an_image_of_the_same_size(build, files):
    build()
    path = files.image_path("c")
    before = path.stat()
    write_dicom(path, random_pixels((65, 64), seed=1))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert_holds_the_files(build(), files)


def test_cache_serves_images_that_were_unpacked_again(build, files, n_read, tmp_path):
    build()
    shutil.copytree(files.images_dir, tmp_path / "copy")  # keeps dates
    shutil.rmtree(files.images_dir)
    (tmp_path / "copy").rename(files.images_dir)
    build()
    assert len(n_read) == len(PATIENTS)


def test_cache_notices_an_image_of_another_size(build, files):
    build()
    write_challenge_dicom(files.image_path("a"), random_pixels((90, 20)))
    assert_holds_the_files(build(), files)


@pytest.mark.parametrize(
    "damage",
    ["empty", "cut", "text", "other magic", "index outside", "ends", "a list", "too deep",
     "negative", "fraction", "turned", "in the head", "no state"],
)  # fmt: skip
def test_cache_that_is_broken_is_built_again(build, files, n_read, damage):
    path = build().path
    content = path.read_bytes()
    magic, offset = HEAD.unpack_from(content)
    index = content[offset:]
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:-5],
            "text": b"no cache" * 1000,
            "other magic": b"pixels 0" + content[len(magic) :],
            "index outside": HEAD.pack(magic, 1 << 60) + content[HEAD.size :],
            "a list": content[:offset] + b"[1, 2]",
            "too deep": content[:offset] + b"[" * 100_000,
            "negative": content[:offset] + index.replace(b"[4096, 64,", b"[-4096, 64,"),
            "fraction": content[:offset] + index.replace(b"[4096, 64,", b"[4096, 64.0,"),
            "turned": content[:offset] + index.replace(b"[4096, 64, 64,", b"[4096, -64, -64,"),
            "in the head": content[:offset] + index.replace(b"[4096,", b"[8,"),
            "no state": content[:offset] + b'{"a": [4096, 64, 64]}',
            "ends": HEAD.pack(magic, 4096) + bytes(4096 - HEAD.size) + index,
        }[damage]
    )
    assert_holds_the_files(build(), files)
    assert len(n_read) == 2 * len(PATIENTS)


# Building it


def test_cache_leaves_out_an_image_of_another_size_than_its_header_says(build, files, monkeypatch):
    monkeypatch.setattr(pixel_cache, "read_any_size", lambda _: (10, 10))
    cache = build()
    assert cache.n_left_out == len(PATIENTS)
    assert_holds_the_files(cache, files)


def test_cache_of_images_that_change_meanwhile_is_refused(build, files, monkeypatch):
    def change_and_read(path):
        os.utime(files.image_path("a"), (1, 1))
        return read_pixels(path)

    monkeypatch.setattr(pixel_cache, "read_any_image", change_and_read)
    with pytest.raises(InputError, match="images changed while they were read; try again"):
        build()
    monkeypatch.undo()
    assert_holds_the_files(build(), files)


def test_cache_is_built_on_a_drive_without_locks_with_a_warning(build, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.warns(UserWarning, match="lock"):
        build()


def write_half(_, content, offset):
    return len(content) // 2


def write_nothing(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", [write_half, write_nothing])
def test_cache_that_fills_the_disk_is_refused_and_leaves_nothing(
    build, tmp_path, monkeypatch, write
):
    monkeypatch.setattr("os.pwrite", write)
    with pytest.raises(InputError, match=r"cache.*(disk is full|No space left on device)"):
        build()
    assert names_in(tmp_path / "cache") == []


def test_cache_that_fills_the_disk_in_a_process_names_its_file(build, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "MIN_FILES", 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE, limits[1]))  # the processes inherit it
    try:
        with pytest.raises(
            OutputError, match=r"cache/pixels_\w+\.bin: cannot be written: File too"
        ):
            build(n_workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(tmp_path / "cache") == []


def test_cache_tells_its_size_first(build, capfd):
    build()
    sizes, *_ = [line for line in capfd.readouterr().err.splitlines() if "GB" in line]
    assert "cache of 4 images: 0.00 GB in" in sizes


def test_cache_refuses_a_disk_that_is_too_small(build, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10, 0, 20_000))
    with pytest.raises(InputError, match=r"0\.00 GB are free; without --cache") as caught:
        build()
    assert len(str(caught.value).splitlines()) == 1
    assert names_in(tmp_path / "cache") == []


@pytest.mark.parametrize("n_workers", [0, 2])
def test_cache_names_a_broken_image_and_leaves_nothing(
    build, files, tmp_path, monkeypatch, n_workers
):
    monkeypatch.setattr(processes, "MIN_FILES", 2)
    path = files.image_path("b")
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(DicomError, match=r"b\.dcm"):
        build(n_workers=n_workers)
    assert names_in(tmp_path / "cache") == []


def test_cache_of_a_folder_that_cannot_be_written_is_refused(files, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="cache: cannot be created as a folder"):
        open_or_build_cache(PATIENTS, files, tmp_path / "cache", n_workers=0)


@contextmanager
def running(*lines):
    """Yield a process that runs these lines, and kill it."""
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def building(files, cache_dir, *, until):
    """Return the lines of a program that builds the cache, and stops half way `until` a condition.

    It says so, and its images lie in `files`.
    """
    return (
        "import time",
        "from pathlib import Path",
        "from src.datasets import pixel_cache",
        "from tests.image_folders import image_folder",
        "read = pixel_cache.read_any_image",
        "def read_slowly(path):",
        "    if path.stem == 'c':",
        "        print('half way', flush=True)",
        f"        while not {until}: time.sleep(0.01)",
        "    return read(path)",
        "pixel_cache.read_any_image = read_slowly",
        f"files = image_folder(Path({str(files.images_dir)!r}))",
        f"place = Path({str(cache_dir)!r})",
        f"pixel_cache.open_or_build_cache({PATIENTS}, files, place, n_workers=0)",
    )


def test_two_builders_build_once(build, files, n_read, tmp_path, monkeypatch):
    told, tell = [], pixel_cache._tell

    def listen(message):
        tell(message)
        told.append(message)
        if "waiting for it" in message:
            (tmp_path / "go on").touch()

    monkeypatch.setattr(pixel_cache, "_tell", listen)
    until = f"Path({str(tmp_path / 'go on')!r}).exists()"
    with running(*building(files, tmp_path / "cache", until=until)) as first:
        assert first.stdout.readline() == "half way\n"
        cache = build()
        assert first.wait() == 0
    assert f"cache: process {first.pid} on " in told[0]
    assert "is building a cache there; waiting for it" in told[0]
    assert n_read == []
    assert_holds_the_files(cache, files)


def test_cache_survives_a_builder_that_is_killed(build, files, tmp_path):
    cache_dir = tmp_path / "cache"
    with running(*building(files, cache_dir, until="False")) as builder:
        assert builder.stdout.readline() == "half way\n"
    (leftover,) = names_in(cache_dir)
    assert leftover.startswith(".")
    cache = build()
    assert_holds_the_files(cache, files)
    assert names_in(cache_dir) == [cache.path.name]


def test_cache_removes_what_a_killed_builder_of_other_images_left(build, tmp_path):
    leftover = tmp_path / "cache" / f".pixels_{'0' * 16}.abcdefgh.tmp.bin"
    leftover.parent.mkdir()
    leftover.touch()
    os.utime(leftover, (2**32, 2**32))  # by the clock of another machine
    cache = build()
    assert names_in(leftover.parent) == [cache.path.name]


@pytest.mark.parametrize("grey", ["viewer", "range"])
def test_a_cache_serves_every_rule_for_grey_values(tmp_path, grey):
    pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    tags = {"WindowCenter": "20.5", "WindowWidth": "21"}
    write_dicom(tmp_path / "plain.dcm", pixels)
    write_dicom(tmp_path / "window.dcm", pixels, **tags)
    write_dicom(tmp_path / "deep.dcm", pixels.astype(np.uint16) * 16, **tags)
    patients, files = ["plain", "window", "deep"], image_folder(tmp_path)
    cache = open_or_build_cache(patients, files, tmp_path / "cache", n_workers=1)
    assert cache.n_left_out == 2
    for patient in patients:
        expected = files.read(patient, grey=grey)
        np.testing.assert_array_equal(cache.read(patient, grey=grey), expected)
