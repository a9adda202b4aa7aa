"""What the values of flags may be; each function turns a flag's text into one, or says why not."""

from __future__ import annotations

import argparse
import math

from src.runs import N_FOLDS


def natural(text: str) -> int:
    """Take a whole number from 0."""
    return _at_least(_whole(text), 0)


def positive(text: str) -> int:
    """Take a whole number from 1."""
    return _at_least(_whole(text), 1)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _at_least(value: int, least: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


def fold(text: str) -> int:
    """Take a fold of the paper."""
    value = _whole(text)
    if not 0 <= value < N_FOLDS:
        raise argparse.ArgumentTypeError(f"{value}: there are folds 0 to {N_FOLDS - 1}")
    return value


def rate(text: str) -> float:
    """Take a learning rate."""
    value = number(text)
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate; 1e-5 is the paper's")
    return value


def number(text: str) -> float:
    """Take any finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def not_negative(text: str) -> float:
    """Take a finite number from 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def share(text: str) -> float:
    """Take a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def factor(text: str) -> float:
    """Take a number above 0, at most 1."""
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def yes_or_no(text: str) -> bool:
    """Take True or False, in whatever case."""
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not True or False")
    return values[text.lower()]
