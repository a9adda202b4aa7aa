import json
import os
from pathlib import Path

import pytest

from src.files import OutputError, make_dir, replaced_file, write_json, write_text


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
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file.txt", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match="cannot be created as a folder"):
        write_text(tmp_path / "file" / "inner.txt", "")
    with pytest.raises(OutputError, match="cannot be created as a folder: File exists"):
        make_dir(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"


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
