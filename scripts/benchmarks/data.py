"""Training samples a second: plain ways, albumentations, this project from DICOM and its cache.

One table is of one core, milliseconds of it for each way in turn. One takes this project's way
apart. One counts the images that come out of the loader's processes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import torch

import config
from scripts.benchmarks.data_ways import (
    ALBUMENTATIONS,
    FROM_CACHE,
    FROM_DICOM,
    PLAIN_PILLOW,
    PlainDataset,
    Way,
    Workload,
    growing_ways,
    sample_ways,
)
from scripts.benchmarks.measuring import (
    Row,
    Timing,
    describe_machine,
    report_tables,
    time_in_turn,
)
from src.datasets.loaders import (
    load_labelled_images,
    prepare_process,
    training_loader,
    unlabelled_loader,
)
from src.datasets.sample_options import SampleOptions

EIGHT_BIT_LEVELS = (15, 20, 21)  # the plain ways are those of these levels
SIZE = 512  # pixels, the paper's
BATCH_SIZE = 4
EPOCH = 256  # images that a loader gives in a timed run, at least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=config.DATA_DIR)
    parser.add_argument("--output-dir", type=Path, default=config.OUTPUT_DIR, help="of the cache")
    parser.add_argument("--images", type=int, default=64, help="how many, of fold 0's training")
    parser.add_argument("--level", type=int, choices=EIGHT_BIT_LEVELS, default=20)
    parser.add_argument("--runs", type=int, default=9, help="timed runs; the median counts")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="processes")
    parser.add_argument("--json", type=Path, help="write the numbers")


def run(arguments: argparse.Namespace) -> None:
    """Measure on one core, then with worker processes."""
    workload = make_workload(arguments)
    with on_one_core():
        ways = sample_ways(workload)
        tables = {
            "one core": compare(ways, time_ways(ways, workload, arguments.runs)),
            "parts": take_apart(
                time_ways(growing_ways(workload), workload, arguments.runs), workload
            ),
        }
    if arguments.workers:
        tables["workers"] = [count_images(workload, n, arguments.runs) for n in arguments.workers]
    if ALBUMENTATIONS not in ways:
        print("albumentations is not installed: pip install albumentations to compare")
    print(f"{len(workload.records)} images, level {arguments.level}, {SIZE} pixels\n")
    libraries = ["pydicom", "simplejpeg", "scikit-image"]
    libraries += ["albumentations"] if ALBUMENTATIONS in ways else []
    others = {name: version(name) for name in libraries}
    report_tables(tables, describe_machine("cpu", 1) | others, arguments.json)


def make_workload(arguments: argparse.Namespace) -> Workload:
    """Read the labels, and open the cache, which is built where it is missing."""
    files, cached = (
        load_labelled_images(arguments.data_dir, 0, cache_dir=folder)
        for folder in (None, arguments.output_dir / "cache")
    )
    files, cached = (
        replace(images, train=images.train[: arguments.images]) for images in (files, cached)
    )
    return Workload(files, cached, SampleOptions(img_size=SIZE, augmentation_level=arguments.level))


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep the work of this process on one core, where the system can."""
    n_threads = cv2.getNumThreads(), torch.get_num_threads()
    prepare_process()
    torch.set_num_threads(1)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed:
        os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        cv2.setNumThreads(n_threads[0])
        torch.set_num_threads(n_threads[1])
        if allowed:
            os.sched_setaffinity(0, allowed)


def time_ways(ways: Mapping[str, Way], workload: Workload, n_runs: int) -> dict[str, Timing]:
    """Time each way over all images, in turn; milliseconds of the processor an image."""
    n_images = len(workload.records)

    def pass_of(way: Way) -> Callable[[], object]:
        return lambda: deque(map(way, range(n_images)), maxlen=0)

    passes = [pass_of(way) for way in ways.values()]
    timings = time_in_turn(passes, n_runs=n_runs, clock=time.process_time)
    return {
        name: Timing(*(seconds / n_images * 1e3 for seconds in timing))
        for name, timing in zip(ways, timings, strict=True)
    }


def compare(ways: Iterable[str], timings: Mapping[str, Timing]) -> list[Row]:
    """Make a row for each way; how many times as fast as the first it is stands last."""
    plain = next(iter(timings.values())).median
    return [
        {
            "way": name,
            "median ms": timings[name].median,
            "fastest ms": timings[name].fastest,
            "slowest ms": timings[name].slowest,
            "times as fast": plain / timings[name].median,
        }
        for name in ways
    ]


def take_apart(timings: Mapping[str, Timing], workload: Workload) -> list[Row]:
    """Make a row for each part: what a way takes more than the one without it."""
    ms = {name: timing.median for name, timing in timings.items()}
    level = workload.level
    parts = {
        "read the file and walk its header": ms["read"] - ms["decode"],
        "decode it": ms["decode"],
        "or copy it out of the cache": ms["copy"],
        "warp": ms["warp"] - ms["copy"],
        "gamma by table, rounding": ms["gamma"] - ms["warp"],
        f"blur, in {level.blur_p:.0%} of the samples": ms["blur"] - ms["gamma"],
        f"noise, in {level.noise_p:.0%} of the samples": ms["noise"] - ms["gamma"],
    }
    return [{"part": name, "median ms": taken} for name, taken in parts.items()]


def count_images(workload: Workload, n_workers: int, n_runs: int) -> Row:
    """Count the images a second that come out of the loaders with so many processes."""
    n_repeats = -(-EPOCH // len(workload.records))
    files, cached = (
        replace(images, train=list(images.train) * n_repeats)
        for images in (workload.files, workload.cached)
    )
    give = partial(
        training_loader, batch_size=BATCH_SIZE, n_workers=n_workers, device=torch.device("cpu")
    )
    plain = PlainDataset(replace(workload, files=files), "pillow")
    loaders = {
        PLAIN_PILLOW: unlabelled_loader(plain, **give.keywords),
        FROM_DICOM: give(files, workload.options)[0],
        FROM_CACHE: give(cached, workload.options)[0],
    }
    epochs = [lambda loader=loader: deque(loader, maxlen=0) for loader in loaders.values()]
    timings = time_in_turn(epochs, n_runs=n_runs)
    n_images = len(files.train) - len(files.train) % BATCH_SIZE
    speeds = (n_images / timing.median for timing in timings)
    return {"workers": n_workers, **dict(zip(loaders, speeds, strict=True))}
