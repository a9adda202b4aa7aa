"""Where a network's time goes, operator by operator."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from src.system.files import replaced_file, write_text

N_RUNS = 3
N_ROWS = 60


def write_profile(
    work: Callable[[], object], title: str, table_path: Path, trace_path: Path | None
) -> None:
    """Run some work under PyTorch's profiler; write the operators that took longest.

    Args:
        work: is warm.
        title: the table's first line.
        table_path: of the table, plain text; it says as well how long the device was at work.
        trace_path: of the same as a trace for Chrome's about:tracing or Perfetto.
    """
    on_cuda = torch.cuda.is_initialized()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_cuda]
    with profile(activities=activities, acc_events=True) as profiler:
        start = time.perf_counter()
        for _ in range(N_RUNS):
            work()
        if on_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    events = profiler.key_averages()
    order = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    lines = [title, f"{N_RUNS} runs took {seconds:.3f} s under the profiler"]
    if on_cuda:
        kernels = [event for event in events if event.device_type == DeviceType.CUDA]
        busy = sum(e.self_device_time_total for e in kernels if not e.is_user_annotation) / 1e6
        lines.append(f"the device was at work for {busy:.3f} s of them, {busy / seconds:.0%}")
    table = events.table(sort_by=order, row_limit=N_ROWS, max_name_column_width=80)
    write_text(table_path, "\n".join([*lines, table]) + "\n")
    if trace_path is not None:
        with replaced_file(trace_path) as temporary:
            profiler.export_chrome_trace(str(temporary))
