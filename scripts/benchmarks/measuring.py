"""How the benchmarks time, describe the machine, and print."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from src.system.files import write_json

Row = dict[str, Any]


class Timing(NamedTuple):
    """Seconds of several runs: the median, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float


def time_in_turn(
    functions: Sequence[Callable[[], object]],
    *,
    n_runs: int,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time functions A, B, A, B, ... after one warm-up each, so that a slow spell hits all.

    Args:
        synchronise: waits until the device has finished.
        clock: gives seconds; `time.process_time` leaves out what other processes take meanwhile.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for run in range(n_runs + 1):
        for function, taken in zip(functions, seconds, strict=True):
            synchronise()
            start = clock()
            function()
            synchronise()
            if run:
                taken.append(clock() - start)
    return [Timing(statistics.median(t), min(t), max(t)) for t in seconds]


def describe_machine(device: str, n_threads: int) -> Row:
    """Tell where the numbers come from."""
    names = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")
    machine: Row = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": n_threads,
        "device": device,
        "python": platform.python_version(),
    }
    if device.startswith("cuda"):
        import torch  # late: the start of commands is timed without it

        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine | {name: version(name) for name in names}


def print_table(rows: Sequence[Row]) -> None:
    """Print rows with the same keys as a Markdown table."""
    columns = list(rows[0])
    cells = [columns, *([_show(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for i, line in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("| " + " | ".join(padded) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def report(rows: Sequence[Row], machine: Row, json_path: Path | None) -> None:
    """Print the table and the machine; write both as JSON where a path is given."""
    report_tables({"rows": rows}, machine, json_path)


def report_tables(
    tables: Mapping[str, Sequence[Row]], machine: Row, json_path: Path | None
) -> None:
    """Print several tables and the machine; write all as JSON where a path is given."""
    for rows in tables.values():
        print_table(rows)
        print()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if json_path is not None:
        write_json(json_path, {"machine": machine, **tables})
        print(json_path)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
