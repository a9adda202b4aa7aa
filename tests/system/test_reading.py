"""Files that are read within bounds, and places that are looked at before anything is done."""

import json
import os
from pathlib import Path

import pytest

from src.system.errors import InputError
from src.system.files import (
    OutputError,
    check_file_place,
    check_place,
    read_bytes,
    read_json,
    real_path,
    replaced_file,
    text_name,
    write_csv,
    write_text,
)

NO_TEXT = "\udcff"


class ReadError(InputError):
    """The error that a reader asks for."""


def refusal(read, *arguments):
    """Return the message of the error, which is one line and names the file."""
    with pytest.raises(ReadError) as caught:
        read(*arguments, ReadError)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{arguments[0]}: ")
    return message


READERS = pytest.mark.parametrize("read", [read_bytes, read_json])


@READERS
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path, read, make):
    make(tmp_path / "file")
    assert "not a regular file" in refusal(read, tmp_path / "file", 100)


@READERS
def test_a_file_is_read_up_to_a_limit(tmp_path, read):
    (tmp_path / "file").write_text("[1, 2, 3]")
    assert read(tmp_path / "file", 9, ReadError) in (b"[1, 2, 3]", [1, 2, 3])
    assert refusal(read, tmp_path / "file", 8).endswith("9 bytes; at most 8 are read")


@READERS
@pytest.mark.parametrize("name", ["none", "a\0b", "\ud800", "x" * 300])
def test_what_cannot_be_a_file_is_refused(tmp_path, read, name):
    assert "cannot be read: " in refusal(read, tmp_path / name, 100)


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 10**5, "1" * 10**4, b"\xff\xff\xff", '{"a": "\x01"}']
)
def test_what_is_no_json_is_refused_in_few_words(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(read_json, path, 10**6)
    assert "not a readable JSON file: " in message
    assert len(message) < len(str(path)) + 400


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a.json").write_text(json.dumps({"a": "grün"}), encoding=encoding)
        assert read_json(tmp_path / "a.json", 100, ReadError) == {"a": "grün"}


def test_what_is_no_text_is_written_as_escapes(tmp_path):
    write_text(tmp_path / "a.txt", f"grün {NO_TEXT}")
    write_csv(tmp_path / "a.csv", ["file"], [[f"grün {NO_TEXT}"]])
    for name in ("a.txt", "a.csv"):
        assert "grün \\udcff" in (tmp_path / name).read_text(encoding="utf-8")


# Places


def test_a_name_that_is_text_stays(tmp_path):
    with text_name(tmp_path / "none") as name:
        assert name == str(tmp_path / "none")


def test_a_name_that_is_no_text_is_replaced_by_one_that_is(tmp_path):
    folder = tmp_path / NO_TEXT
    folder.mkdir()
    (folder / "a").write_text("content")
    n_open = len(list(Path("/dev/fd").iterdir()))
    with text_name(folder / "a") as name, text_name(folder) as folder_name:
        name.encode()
        assert Path(name).read_text() == "content"
        assert [path.name for path in Path(folder_name).iterdir()] == ["a"]
    assert len(list(Path("/dev/fd").iterdir())) == n_open


def test_a_real_path_follows_links_and_stays_where_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert real_path(tmp_path / "link") == tmp_path.resolve() / "target"
    assert real_path(tmp_path / "loop" / "below").parts[-2:] == ("loop", "below")
    for name, expected in (("~/a", tmp_path.resolve() / "a"), ("~nobody-here/a", None)):
        path = real_path(Path(name))
        assert path == expected or (expected is None and path.name == "a")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_a_pipe_or_a_device_is_not_replaced(tmp_path, make):
    make(tmp_path / "file.txt")
    for write in (check_file_place, lambda path: replaced_file(path).__enter__()):
        with pytest.raises(OutputError, match="a pipe or a device is in its place"):
            write(tmp_path / "file.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("below", [".", "below"])
@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_that_leads_nowhere_is_no_place_for_a_folder(tmp_path, target, below):
    (tmp_path / "loop").symlink_to(tmp_path / target)
    with pytest.raises(OutputError, match="cannot be filled"):
        check_place(tmp_path / "loop" / below)
