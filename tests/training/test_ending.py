import math

import pytest

from src.training.ending import find_ending

NAN = math.nan


def history_of(*losses):
    return [{"epoch": i, "valid_loss": -i, "valid_regression": x} for i, x in enumerate(losses)]


def ends(patience, *losses):
    ending = find_ending(len(losses), history_of(*losses), 100, patience)
    return None if ending is None else ending.by


@pytest.mark.parametrize(
    ("patience", "losses", "by"),
    [
        (1, (), None),
        (1, (0.5,), None),
        (1, (0.5, 0.4), None),
        (1, (0.5, 0.5), "--patience"),  # as low is not lower
        (1, (0.5, 0.6), "--patience"),
        (2, (0.5, 0.6), None),
        (2, (0.5, 0.6, 0.55), "--patience"),
        (2, (0.5, 0.6, 0.4), None),
        (2, (NAN, 0.6), None),
        (2, (0.5, NAN, NAN), "--patience"),
        (2, (NAN, NAN, NAN), "--patience"),
        (None, (0.5, 0.6, 0.7), None),
    ],
)
def test_patience_counts_the_epochs_after_the_least_regression_loss(patience, losses, by):
    assert ends(patience, *losses) == by


def test_a_training_ends_with_its_last_epoch_whatever_its_patience():
    history = history_of(0.5, 0.6)
    assert find_ending(2, history, 2, 1) == ("all epochs", "all 2 epochs are done")
    assert find_ending(3, history, 2, None) == ("all epochs", "all 3 epochs are done")


def test_patience_names_the_epochs_where_the_first_ones_are_unknown():
    ending = find_ending(9, history_of(0.5, 0.6), 100, 1)
    assert ending is not None
    assert "after epoch 8: the validation regression loss was least in epoch 7;" in ending.words
