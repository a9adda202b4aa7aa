"""One index of image files: what counts, what it is called, and what is left out with a word."""

import errno
import os
import socket

import pytest

from src.radiographs.image_index import ImageFile, index_images, without_ending
from src.system.errors import InputError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def left_out(index):
    return {path.name: cause.removeprefix(f"{path}: ") for path, cause in index.left_out}


def test_files_of_any_ending_and_depth_count_without_hidden_ones(tmp_path):
    make(tmp_path, "b/x.png", "a.jpg", "C.DCM")
    make(tmp_path, ".hidden/y.png", "b/.z.png", "._p00.dcm", ".DS_Store")
    index = index_images(tmp_path)
    assert index.names == ("C.DCM", "a.jpg", "b/x.png")
    assert index.left_out == ()
    assert index.files()[2] == ImageFile("b/x.png", tmp_path / "b/x.png")


def test_names_are_sorted_folder_by_folder(tmp_path):
    make(tmp_path, "a/x", "a b/x", "a.dcm", "a-1/x")
    assert index_images(tmp_path).names == ("a/x", "a b/x", "a-1/x", "a.dcm")


def test_links_are_followed_and_a_loop_ends(tmp_path):
    make(tmp_path, "images/a.dcm", "images/sub/b.dcm", "elsewhere/deep/c.dcm")
    folder = tmp_path / "images"
    (folder / "linked.dcm").symlink_to(folder / "a.dcm")
    (folder / "a linked folder").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "loop").symlink_to(folder)
    (tmp_path / "elsewhere" / "deep" / "loop").symlink_to(tmp_path / "elsewhere")
    index = index_images(folder)
    assert index.names == ("a linked folder/deep/c.dcm", "a.dcm", "linked.dcm", "sub/b.dcm")
    assert [path.name for path, _ in index.left_out] == ["loop", "loop"]
    assert all("listed already" in cause for _, cause in index.left_out)


def test_a_folder_keeps_its_own_name_beside_a_link_to_it(tmp_path):
    make(tmp_path, "z/a.dcm")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert index_images(tmp_path).names == ("z/a.dcm",)


def test_what_cannot_be_used_is_left_out_with_its_cause(tmp_path, monkeypatch):
    make(tmp_path, "a.dcm", "closed/b.dcm")
    (tmp_path / "broken.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.dcm").symlink_to(tmp_path / "itself.dcm")
    os.mkfifo(tmp_path / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)
        server.bind("socket.dcm")
    os.close(os.open(os.fsencode(tmp_path) + b"/p\xff.dcm", os.O_CREAT))
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    index = index_images(tmp_path)
    assert index.names == ("a.dcm",)
    assert left_out(index) == {
        "broken.dcm": "a broken link: No such file or directory",
        "closed": "cannot be read: Permission denied",
        "itself.dcm": "a broken link: Too many levels of symbolic links",
        "pipe.dcm": "not a regular file",
        "p\udcff.dcm": f"{tmp_path}/p\\udcff.dcm: its name is no text",
        "socket.dcm": "not a regular file",
    }
    with pytest.warns(UserWarning, match=r"6 files or folders .*broken\.dcm: .*; and 3 more"):
        index.warn()


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        index_images(tmp_path)


def test_a_single_file_is_taken(tmp_path):
    make(tmp_path, "sub/a.png", "sub/b.png")
    assert index_images(tmp_path / "sub/a.png").files() == [
        ImageFile("a.png", tmp_path / "sub/a.png")
    ]


@pytest.mark.parametrize("spoil", [lambda path: None, lambda path: path.mkdir(),
                                   lambda path: make(path, ".hidden")])  # fmt: skip
def test_nothing_to_read_is_refused(tmp_path, spoil):
    spoil(tmp_path / "place")
    with pytest.raises(InputError, match="place: "):
        index_images(tmp_path / "place")


def test_nothing_that_can_be_used_is_refused_with_the_cause(tmp_path):
    (tmp_path / "a.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no image files.*a\.dcm: a broken link"):
        index_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.dcm", "a"), ("a b.v2.PNG", "a b.v2"), ("1.2.840.113", "1.2.840.113"), ("a", "a"),
     ("1.2.dcm", "1.2"), ("s.1/a", "s.1/a"), ("s.x/a.png", "s.x/a"), ("a.", "a."),
     ("ä.jpeg", "ä")],
)  # fmt: skip
def test_an_ending_is_taken_off(name, expected):
    assert without_ending(name) == expected


def test_an_image_goes_by_the_name_that_labels_use(tmp_path):
    make(tmp_path, "s1/view.png", "s2/view.png", "plain.dcm", "with.jpg", "deep/er/own.dcm",
         "1.2.3.dcm", "1.2.4")  # fmt: skip
    named = ["s1/view", "s2/view.png", "plain", "with.jpg", "own", "1.2.3", "1.2.4"]
    assert index_images(tmp_path).names_by_id(named, only_named=True) == {
        "s1/view": "s1/view.png",
        "s2/view.png": "s2/view.png",
        "plain": "plain.dcm",
        "with.jpg": "with.jpg",
        "own": "deep/er/own.dcm",
        "1.2.3": "1.2.3.dcm",
        "1.2.4": "1.2.4",
    }


def test_letters_in_another_form_of_unicode_are_the_same(tmp_path):
    make(tmp_path, "a\u0308.png")
    assert list(index_images(tmp_path).names_by_id(["\xe4"], only_named=True)) == ["\xe4"]


@pytest.mark.parametrize("other", ["t00.DCM", "sub/t00.png"])
def test_two_files_for_one_id_are_refused_by_name(tmp_path, other):
    make(tmp_path, "t00.dcm", other, "t01.dcm")
    index = index_images(tmp_path)
    assert len(index.files()) == 3
    for named in ([], ["t00", "t01"]):
        with pytest.raises(InputError, match=rf"t00\.(dcm|DCM) and {other}|{other} and t00\.dcm"):
            index.names_by_id(named)
    assert index.names_by_id(["t01"], only_named=True) == {"t01": "t01.dcm"}


def test_a_text_beside_its_image_is_no_second_image(tmp_path):
    make(tmp_path, "a.txt", "a.json")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert index_images(tmp_path).names_by_id() == {"a": "a.png"}
