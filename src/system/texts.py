"""Text that may hold anything, such as names of files, as terminals and figures can show it."""

from __future__ import annotations

import unicodedata

UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # of Unicode: controls, surrogates, separators of lines


def printable(text: str) -> str:
    """Write as escapes what cannot be shown, or would act on a terminal.

    These are control characters, ends of lines, and the bytes of file names that are no text.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSHOWN else char
        for char in text
    )


def is_text(name: str) -> bool:
    """Say whether a name of a file is text, and not only bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
