import pytest

from src.system.texts import is_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grün 肺 \u3000 a$b_{", "grün 肺 \u3000 a$b_{"),
        ("a\udcffb", "a\\udcffb"),
        ("\x1b[31m\n\x00\x85\u2028", "\\x1b[31m\\n\\x00\\x85\\u2028"),
    ],
)
def test_what_cannot_be_shown_is_written_as_escapes(text, shown):
    assert printable(text) == shown


def test_bytes_that_are_no_text_are_told_from_text():
    assert is_text("grün 肺 \x1b")
    assert not is_text("a\udcffb")
