"""The flags of generate_predictions that make an ensemble again, and its members in words."""

from __future__ import annotations

from collections.abc import Iterator

from src.prediction.provenance import Combination, NetworkId

ANY_FOLD = "K"  # for the reader to replace
RunKey = tuple[str | None, int | None]  # model and fold; all runs of an ensemble have one tag


def describe_ensemble(ensemble: Combination) -> str:
    """Name the members in words, each run with its epochs."""
    runs = []
    for (model, fold), own in _by_run(ensemble).items():
        name = f"{model}_{own[0].tag}" if own[0].tag else f"{model}"
        where = name if fold is None else f"{name} fold {fold}"
        epochs = ", ".join(str(one.epoch) for one in own)
        runs.append(f"{where} epoch{'s' if len(own) > 1 else ''} {epochs}")
    mirrored = ", each with mirrored images as well" if ensemble.hflip else ""
    return f"{'; '.join(runs)}{mirrored}"


def flags_of_ensemble(ensemble: Combination) -> str | None:
    """Write the flags that combine the same networks in the same way.

    Args:
        ensemble: where its members have no fold, as in a pool of folds, K stands for it.

    Returns:
        None where no flags name the members: --epochs takes the same epochs of every run.
    """
    by_run = _by_run(ensemble)
    models = list(dict.fromkeys(str(model) for model, _ in by_run))
    folds = list(dict.fromkeys(fold for _, fold in by_run))
    tags = {one.tag or "" for one in ensemble.members}
    epochs = {tuple(one.epoch for one in own) for own in by_run.values()}
    weights = {tuple(one.weight for one in own) for own in by_run.values()}
    if len(tags) > 1 or len(epochs) > 1 or any(len(set(own)) > 1 for own in weights):
        return None
    words = ["--model", *models]
    words += ["--run", *tags] if tags != {""} else []
    words += ["--folds", *(ANY_FOLD if fold is None else str(fold) for fold in folds)]
    words += ["--epochs", *map(str, epochs.pop())]
    if len(weights) > 1 or len(by_run) < len(models) * len(folds):
        words.append("--run-weights")
        words += [f"{sum(one.weight for one in by_run.get((model, fold), [])):.9g}"
                  for model in models for fold in folds]  # fmt: skip
    words += ["--tta", "hflip"] if ensemble.hflip else []
    return " ".join([*words, *_size_flags(ensemble)])


def _size_flags(ensemble: Combination) -> Iterator[str]:
    yield from ("--combine", ensemble.size_rule)
    if ensemble.size_rule == "percentile":
        yield from ("--k", f"{ensemble.k or 0:.9g}")


def _by_run(ensemble: Combination) -> dict[RunKey, list[NetworkId]]:
    """Return the networks of each run, in the order of the members."""
    runs: dict[RunKey, list[NetworkId]] = {}
    for one in ensemble.members:
        runs.setdefault((one.model, one.fold), []).append(one)
    return runs
