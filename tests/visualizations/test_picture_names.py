import pytest

from src.visualizations.picture_names import MAX_NAME, MAX_PATH, picture_names


def parts_of(names):
    return [part for name in names for part in name.split("/")]


def test_a_picture_lies_where_its_file_lies():
    files = ["a.dcm", "deep/er/b.png", "deep/c"]
    assert picture_names(files) == ["a.dcm.png", "deep/er/b.png.png", "deep/c.png"]


def test_a_picture_gives_way_to_folders_and_to_what_is_taken():
    assert picture_names(["x", "x.png/y"]) == ["x-2.png", "x.png/y.png"]
    assert picture_names(["x", "x-2", "x.png/y"]) == ["x-2.png", "x-2-2.png", "x.png/y.png"]
    assert picture_names(["overview", "a"], taken=["overview.png"]) == ["overview-2.png", "a.png"]


def test_names_that_differ_in_case_alone_stay_apart():
    assert picture_names(["a", "A", "D/x", "d/x"]) == ["a.png", "A-2.png", "D/x.png", "d/x-2.png"]


def test_characters_that_cannot_be_shown_are_replaced():
    assert picture_names(["a\nb", "a\tb", "é"]) == ["a_b.png", "a_b-2.png", "é.png"]


@pytest.mark.parametrize("letter", ["x", "é", "肺"])
def test_long_names_are_cut_and_stay_apart(letter):
    n = 255 // len(letter.encode())
    files = [letter * n, letter * (n - 1), f"{letter * n}/a", f"{letter * (n - 1)}/a", "b"]
    names = picture_names(files)
    assert len(set(names)) == len(files)
    assert all(len(part.encode()) < MAX_NAME + 20 for part in parts_of(names))
    assert names == picture_names(files)


def test_what_lies_too_deep_lies_at_the_top():
    deep = "/".join(["folder" * 10] * 40)
    names = picture_names([f"{deep}/a", f"{deep}/b/a", "a"])
    assert len(set(names)) == 3
    assert all("/" not in name and len(name.encode()) < MAX_PATH for name in names)


def test_many_files_are_named_in_no_time():
    files = [f"{i % 7}/{i}" for i in range(30_000)]
    assert len(set(picture_names(files))) == len(files)
