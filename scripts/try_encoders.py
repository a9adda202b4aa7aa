"""Try every network of timm as an encoder once, without data, and write what came of it as a CSV.

`python scripts/try_encoders.py` adds to docs/encoders_all.csv what it does not hold yet for the
installed timm; the first network of every family goes first. Nothing is downloaded, and the tensors
hold no numbers: shapes, gradients and the names of weights need none.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import time
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from src.system.command_line import CommandParser, positive, report_errors
from src.system.errors import InputError
from src.system.files import check_file_place, write_csv

OUT = Path(__file__).resolve().parents[1] / "docs" / "encoders_all.csv"
SIDE = 512  # pixels, the paper's
COLUMNS = ("timm", "family", "model", "works", "channels", "parameters_m", "idle", "weights", "why")


def try_encoder(model: str) -> dict[str, Any]:
    """Build timm's `model` as an encoder, and look at its maps, gradients and weights.

    Returns:
        `works`: "yes" or "no"; `channels` of C2 to C5; `parameters_m`: millions; `idle`: how many
        parameters no gradient reaches; `weights`: "by name" where the network's own all find their
        place, else what is wrong; `why`: the reason of a refusal.
    """
    import torch

    from src.retinanet.encoders import TIMM_PREFIX, build_encoder

    row: dict[str, Any] = {"model": model}
    with torch.device("meta"):
        try:
            encoder = build_encoder(TIMM_PREFIX + model, img_size=SIDE)
        except InputError as error:
            reason = str(error).split(" cannot be an encoder: ")[-1].rpartition("; these can: ")[0]
            return {**row, "works": "no", "why": " ".join(reason.split()) or str(error)}
        maps = encoder.eval()(torch.zeros(1, 3, SIDE, SIDE))
        torch.stack([level.square().mean() for level in maps]).sum().backward()
    weights = list(encoder.parameters())
    return {
        **row,
        "works": "yes",
        "channels": " ".join(map(str, encoder.out_channels)),
        "parameters_m": f"{sum(weight.numel() for weight in weights) / 1e6:.1f}",
        "idle": sum(weight.grad is None for weight in weights),
        "weights": _try_weights(encoder),
    }


def _try_weights(encoder: Any) -> str:  # noqa: ANN401 - a TimmEncoder
    """Load what timm's whole network holds under its own names."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copying tensors without numbers does nothing
        try:
            encoder.load_pretrained(encoder.whole_network().state_dict())
        except ValueError as error:
            return str(error)
    return "by name"


def _in_order() -> Iterator[tuple[str, str]]:
    """Give family and name of every network, by turns from all families."""
    import timm

    by_family = {module: timm.list_models(module=module) for module in timm.list_modules()}
    for turn in zip_longest(*by_family.values()):
        yield from ((family, model) for family, model in zip(by_family, turn, strict=True) if model)


def _read_earlier(path: Path, version: str) -> list[dict[str, Any]]:
    """Read the rows of the installed timm that the file holds.

    Raises:
        InputError: it is another file.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}: not a table of encoders; its header is not "
                                 f"{','.join(COLUMNS)}")  # fmt: skip
            return [row for row in reader if row["timm"] == version]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of encoders: {error}") from error


def main() -> None:
    parser = CommandParser("Try every network of timm as an encoder once.")
    parser.add_argument("--out", type=Path, default=OUT, help="the table; rows are added to it")
    parser.add_argument("--minutes", type=positive, help="stop after so long; default: when all "
                        "have been tried")  # fmt: skip
    parser.add_argument("--models", nargs="+", help="these alone; default: all")
    arguments = parser.parse_args()
    with report_errors():
        check_file_place(arguments.out)
        import timm

        rows = _read_earlier(arguments.out, timm.__version__)
        tried = {row["model"] for row in rows}
        todo = [(family, model) for family, model in _in_order() if model not in tried]
        if arguments.models:
            todo = [pair for pair in todo if pair[1] in arguments.models]
        end = time.monotonic() + 60 * (arguments.minutes or float("inf"))
        for family, model in todo:
            if time.monotonic() > end:
                break
            row = try_encoder(model)
            rows.append({"timm": timm.__version__, "family": family, **row})
            print(f"{model}: {row['works']} {row.get('why', '')}", flush=True)
            table = sorted([str(row.get(name, "")) for name in COLUMNS] for row in rows)
            write_csv(arguments.out, COLUMNS, table)
        works = sum(row["works"] == "yes" for row in rows)
        print(f"{works} of {len(rows)} can be encoders; {arguments.out}")


if __name__ == "__main__":
    main()
