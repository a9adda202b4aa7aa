"""Draw a number of each group of images, with its interval: a forest of subgroups.

`python src/visualizations/plot_groups.py output/demo_fold_0/groups.csv --out groups.png` shows the
challenge's score by view, sex, age or whatever `src/scores.py --groups` was given; `--number ap_50`
another number. Small groups have open marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run by path: find `config` and `src` from the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import math
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from src.scoring.number_tables import GROUP_HEADER
from src.scoring.quoted_numbers import NumberResult
from src.system.command_line import CommandParser, report_errors
from src.system.csv_files import read_csv_bytes
from src.system.errors import InputError
from src.system.records import MAX_CAUSE, cut_text
from src.visualizations.figures import check_picture_path, drawable, new_figure, save_figure

ROW_HEIGHT, WIDTH = 0.28, 8.0  # inches
INK = "black"


class GroupValue(NamedTuple):
    """A number of one group."""

    column: str
    group: str
    n_images: int
    is_small: bool
    value: float
    low: float
    high: float


def read_groups(path: Path, number: str, image_score: str = "") -> list[GroupValue]:
    """Read a number of every group where it is defined.

    Args:
        path: of what `scores.py --groups` wrote.
        number: its name there.
        image_score: of a number of images, the score that it judges; "" takes the first.

    Raises:
        InputError: the file is missing or something else, or holds no such number.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; src/scores.py --groups writes it")
    columns = [*GROUP_HEADER, *NumberResult._fields]
    content = read_csv_bytes(path, InputError)
    try:
        table = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False)[columns]
        numbers = table[["images", "is_small"]].astype(int)
        values = table[["value", "low", "high"]].replace("", "nan").astype(float)
    except (ValueError, KeyError) as error:
        cause = cut_text(" ".join(str(error).split()), MAX_CAUSE)
        raise InputError(f"{path}: not a groups.csv of src/scores.py: {cause}") from error
    known = sorted(set(table["name"]))
    if number not in known:
        shown = cut_text(", ".join(known))
        raise InputError(f"{path}: holds no number {cut_text(number)}, only {shown}")
    its = table["name"] == number
    score = image_score or table.loc[its, "image_score"].iloc[0]
    rows = its & (table["image_score"] == score) & values.notna().all(axis=1)
    if not rows.any():
        raise InputError(f"{path}: {number} {cut_text(score)} is defined in no group".rstrip())
    cells = [
        *(table[name][rows].tolist() for name in ("column", "group")),
        *(numbers[name][rows].tolist() for name in ("images", "is_small")),
        *(values[name][rows].tolist() for name in ("value", "low", "high")),
    ]
    return [
        GroupValue(column, group, n_images, bool(is_small), *its_values)
        for column, group, n_images, is_small, *its_values in zip(*cells, strict=True)
    ]


def plot_groups(groups: Sequence[GroupValue], title: str) -> Figure:
    """Draw a row for each group, the columns of the table apart from one another."""
    columns = list(dict.fromkeys(group.column for group in groups))
    figure = new_figure(WIDTH, 1.4 + ROW_HEIGHT * (len(groups) + 1.5 * len(columns)))
    axes = figure.subplots()
    place, places, labels = 0.0, [], []
    for column in columns:
        axes.text(0.0, place, drawable(column), transform=axes.get_yaxis_transform(),
                  weight="bold", size="small", va="center", ha="left")  # fmt: skip
        place += 1
        for group in groups:
            if group.column != column:
                continue
            fill = "white" if group.is_small else INK
            axes.plot([group.low, group.high], [place, place], color=INK, linewidth=1.2)
            axes.plot(group.value, place, "o", color=INK, markerfacecolor=fill, markersize=5)
            axes.text(1.01, place, f"{group.value:.3f}", transform=axes.get_yaxis_transform(),
                      va="center", size="small")  # fmt: skip
            places.append(place)
            labels.append(drawable(f"{group.group} ({group.n_images:,})"))
            place += 1
        place += 0.5
    axes.set_yticks(places, labels, size="small")
    axes.set_ylim(place - 0.5, -0.8)
    low, high = min(group.low for group in groups), max(group.high for group in groups)
    margin = 0.05 * max(high - low, 0.1)
    axes.set_xlim(math.floor(20 * (low - margin)) / 20, high + margin)
    axes.set_xlabel("value with 95 % of bootstrap draws; in brackets images, open: a small group")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    return figure


def main() -> None:
    parser = CommandParser("Draw a number of each group of images, with its interval.")
    add = parser.add_argument
    add("groups", type=Path, help="groups.csv of a run, written by src/scores.py --groups")
    add("--number", default="score", help="its name in the file")
    add("--image-score", default="", help="of a number of images: the score that it judges")
    add("--out", type=Path, default=Path("groups.png"), help="the picture")
    arguments = parser.parse_args()
    with report_errors():
        check_picture_path(arguments.out)
        groups = read_groups(arguments.groups, arguments.number, arguments.image_score)
        title = " ".join(filter(None, (arguments.number, arguments.image_score, "by group")))
        print(*save_figure(plot_groups(groups, drawable(title)), arguments.out), sep="\n")


if __name__ == "__main__":
    main()
