import errno
import json
import os
import stat
import time
from pathlib import Path

import pytest

from src.system.files import (
    IDLE_SECONDS,
    OutputError,
    check_place,
    make_dir,
    new_folder,
    replaced_file,
    write_csv,
    write_json,
    write_text,
)


def test_replaced_file_writes_the_whole_file(tmp_path):
    path = tmp_path / "a folder" / "with space" / "file.txt"
    write_text(path, "grün\n")
    assert path.read_text(encoding="utf-8") == "grün\n"
    assert list(path.parent.iterdir()) == [path]


def test_replaced_file_keeps_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replaced_file(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyError("in the middle")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_shows_nothing_under_the_final_name_before_the_end(tmp_path):
    path = tmp_path / "file.txt"
    with replaced_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"


def test_replaced_file_turns_a_failed_write_into_an_output_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    expected = pytest.raises(OutputError, match=r"file\.txt: cannot be written: No space left")
    with expected, replaced_file(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_has_the_usual_rights(tmp_path):
    write_text(tmp_path / "file.txt", "")
    (tmp_path / "plain.txt").write_text("")
    assert (tmp_path / "file.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_replaced_file_refuses_a_folder_in_its_place(tmp_path):
    (tmp_path / "file.txt" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder is in its place"):  # before the work
        write_text(tmp_path / "file.txt", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match="cannot be created as a folder"):
        write_text(tmp_path / "file" / "inner.txt", "")
    with pytest.raises(OutputError, match="cannot be created as a folder: File exists"):
        make_dir(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"


def test_a_place_is_checked_before_the_work_and_left_as_it_is(tmp_path):
    check_place(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot be filled: .*file is no folder"):
            check_place(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_file_system_that_takes_no_files_is_refused():
    with pytest.raises(OutputError, match="/proc/new"):
        write_text(Path("/proc/new/file.txt"), "")
    with pytest.raises(OutputError, match=r"/proc/file\.txt"):
        write_text(Path("/proc/file.txt"), "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="not writable"):
        make_dir(tmp_path)


def test_write_json_writes_paths_as_text(tmp_path):
    write_json(tmp_path / "file.json", {"path": Path("a/b"), "levels": (3, 4), "none": None})
    content = json.loads((tmp_path / "file.json").read_text())
    assert content == {"path": "a/b", "levels": [3, 4], "none": None}


@pytest.fixture
def flushed(monkeypatch):
    """Return the list of all that is flushed from now on: folders and files."""
    kinds = []

    def remember(handle):
        kinds.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    monkeypatch.setattr(os, "fsync", remember)
    return kinds


def test_replaced_file_flushes_the_file_and_then_its_name(tmp_path, flushed):
    write_text(tmp_path / "file.txt", "new")
    assert flushed == ["file", "folder"]


def fail_on_folders(number):
    def flush(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    return flush


def test_replaced_file_does_without_a_flush_that_the_file_system_does_not_know(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", fail_on_folders(errno.EINVAL))
    write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new"


def test_replaced_file_reports_a_name_that_may_not_last(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_on_folders(errno.EIO))
    with pytest.raises(OutputError, match=r"file\.txt: cannot be written: Input/output error"):
        write_text(tmp_path / "file.txt", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "file.txt"]


def make_leftovers(folder, age):
    """Make what killed writers leave, last changed `age` seconds ago."""
    names = (".file.abcd_123.tmp.txt", ".data.abcd_123.partial/images/a.dcm")
    leftovers = [folder / name for name in names]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (*leftovers, folder / ".data.abcd_123.partial/images",
                 folder / ".data.abcd_123.partial"):  # fmt: skip
        os.utime(path, (time.time() - age,) * 2)
    return leftovers


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    make_leftovers(tmp_path, IDLE_SECONDS + 10)
    write_text(tmp_path / "file.txt", "new")
    with new_folder(tmp_path / "data"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file.txt"]


def test_a_writer_leaves_what_another_one_may_be_writing(tmp_path):
    leftovers = make_leftovers(tmp_path, IDLE_SECONDS - 100)
    write_text(tmp_path / "file.txt", "new")
    with new_folder(tmp_path / "data"):
        pass
    assert all(path.exists() for path in leftovers)


def test_a_writer_leaves_the_leftovers_of_other_names(tmp_path):
    leftovers = make_leftovers(tmp_path, IDLE_SECONDS + 10)
    for name in ("fil.txt", "file.csv", "file.x.txt", "FILE.txt", "abcd_123.txt"):
        write_text(tmp_path / name, "new")
    assert all(path.exists() for path in leftovers)


def test_two_writers_of_one_name_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file.txt"
    with replaced_file(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_flushes_every_file_and_every_folder(tmp_path, flushed):
    with new_folder(tmp_path / "data") as folder:
        make_dir(folder / "images")
        (folder / "images" / "a").touch()
        (folder / "images" / "link").symlink_to("nowhere")
        (folder / "labels.csv").touch()
    assert sorted(flushed) == ["file"] * 2 + ["folder"] * 3


def test_new_folder_shows_nothing_under_the_final_name_before_the_end(tmp_path):
    with new_folder(tmp_path / "data") as folder:
        (folder / "a").touch()
        assert not (tmp_path / "data").exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


def test_new_folder_has_the_usual_rights(tmp_path):
    with new_folder(tmp_path / "data"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "data").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_new_folder_takes_an_empty_place_and_no_other(tmp_path):
    (tmp_path / "data").mkdir()
    with new_folder(tmp_path / "data") as folder:
        (folder / "a").write_text("old")
    with (
        pytest.raises(OutputError, match="data: cannot be written: Directory not empty"),
        new_folder(tmp_path / "data") as folder,
    ):
        (folder / "a").write_text("new")
    assert (tmp_path / "data" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_write_csv_writes_header_and_rows_as_they_are_read_everywhere(tmp_path):
    path = tmp_path / "new" / "a.csv"
    write_csv(path, ("name", "n"), [("ä, b", 1), ("", 2.5)])
    assert path.read_bytes() == 'name,n\n"ä, b",1\n,2.5\n'.encode()
