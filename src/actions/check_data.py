"""Look through a data folder before a training does."""

from __future__ import annotations

from src.actions.flags import Flags
from src.datasets.data_check import (
    check_data_folder,
    describe,
    verdict,
    write_findings,
    write_groups,
)
from src.datasets.data_folder import DataFolder
from src.system.errors import InputError
from src.system.files import check_file_place


def check_data(flags: Flags) -> None:
    """Look through the data folder; end with an error where a training of the fold would fail."""
    path = flags.out or flags.output_dir / "check_data.csv"
    groups_path = path.with_name(f"{path.stem}_groups.csv")
    for place in (path, groups_path):
        check_file_place(place)
    checked = check_data_folder(
        DataFolder(flags.data_dir), flags.fold, full=flags.full, n_workers=flags.num_workers
    )
    write_findings(path, checked.findings)
    print(*describe(checked.findings), path, sep="\n", flush=True)
    groups = list(checked.groups())
    if groups:
        write_groups(groups_path, groups)
        print(groups_path)
    would_run, sentence = verdict(checked.findings, flags.fold)
    if not would_run:
        raise InputError(f"{flags.data_dir}: {sentence}")
    print(sentence)
