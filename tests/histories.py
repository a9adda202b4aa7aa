"""What histories of equal trainings have in common."""

import pandas as pd

from src.experiments.history import COSTS


def repeatable_of(run):
    """Return the history of a run as it was written, without what its epochs cost."""
    return pd.read_csv(run.history_path, dtype=str).drop(columns=list(COSTS)).to_dict("records")
