"""Settings of an experiment that a command line changes: FIELD=VALUE, and the tag of such a run."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from src.experiments.experiment import Experiment
from src.system.errors import InputError
from src.system.records import read_field, show_value

MAX_TAG = 80  # characters; folders' names have at most 255


def read_changes(words: Iterable[str]) -> dict[str, Any]:
    """Read FIELD=VALUE; whether a value is right is checked where the experiment is made.

    Lists are written with commas, None as none, and True and False as true and false.

    Returns:
        Field of `Experiment` -> value, in the order of the fields.

    Raises:
        InputError: a word has no "=", or names no field, or the same one as another word.
    """
    names = [field.name for field in fields(Experiment)]
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"--set {show_value(word)}: FIELD=VALUE would be right")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(names)}"
            raise InputError(f"--set {show_value(word)}: no such setting; {hint}")
        if name in changes:
            raise InputError(f"--set {show_value(word)}: {name} is set twice")
        changes[name] = read_field(Experiment, name, text)
    return {name: changes[name] for name in names if name in changes}


def tag_of_changes(changes: Mapping[str, Any]) -> str:
    """Name the run of a changed experiment after what was changed: always the same for the same."""
    tag = "_".join(f"{name}-{_in_name(value)}" for name, value in changes.items())
    if len(tag) > MAX_TAG:
        return f"set-{hashlib.sha256(tag.encode()).hexdigest()[:10]}"
    return tag


def _in_name(value: object) -> str:
    """Write a value as a part of a file's name."""
    if isinstance(value, tuple):
        return "-".join(map(_in_name, value))
    return re.sub("[^A-Za-z0-9._-]", "-", str(value))
