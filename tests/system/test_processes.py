import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from src.system import processes
from src.system.errors import InputError
from src.system.processes import StopRequest, map_files, process_peak, worker_errors
from tests.paths import ROOT

PATHS = [Path(f"f{i:02}") for i in range(40)]  # three chunks


@pytest.fixture(autouse=True)
def few_files_are_enough(monkeypatch):
    monkeypatch.setattr(processes, "MIN_FILES", 2)


def name_of(path, number=0):
    return f"{path} {number} {os.getpid()}"


def die_of(deadly, path):
    if path.name == deadly:
        os._exit(1)
    return path.name


def die_once(marker, path):
    if path.name == "f20" and not marker.exists():
        marker.touch()
        os._exit(1)
    return path.name


def test_map_files_reads_in_other_processes_in_order():
    numbers = list(range(len(PATHS)))
    names = [name.split() for name in map_files(name_of, PATHS, numbers, n_workers=2)]
    assert [(Path(name), int(number)) for name, number, _ in names] == list(
        zip(PATHS, numbers, strict=True)
    )
    assert str(os.getpid()) not in {pid for *_, pid in names}


@pytest.mark.parametrize(("n_workers", "n_files"), [(0, 40), (1, 40), (2, 1)])
def test_map_files_needs_no_process_for_little_work(n_workers, n_files):
    names = list(map_files(name_of, PATHS[:n_files], n_workers=n_workers))
    assert {int(name.split()[2]) for name in names} == {os.getpid()}
    assert len(names) == n_files


def test_map_files_names_the_file_that_kills_its_reader():
    with pytest.raises(InputError, match=r"^f35: the process that read it died") as caught:
        list(map_files(partial(die_of, "f35"), PATHS, n_workers=2))
    assert len(str(caught.value).splitlines()) == 1


def test_map_files_goes_on_where_a_process_dies_once(tmp_path):
    names = list(map_files(partial(die_once, tmp_path / "died"), PATHS, n_workers=2))
    assert names == [path.name for path in PATHS]
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system"), "cannot be started: Read-only file system"),
        (BrokenProcessPool(), "a worker process died: memory ran out"),
    ],
)
def test_workers_that_cannot_be_had_end_in_one_line(monkeypatch, error, words):
    def refuse(_):
        raise error

    monkeypatch.setattr(processes, "worker_pool", refuse)
    with pytest.raises(InputError, match=words):
        list(map_files(name_of, PATHS, n_workers=2))


def test_an_error_about_a_file_is_none_of_the_workers():
    with pytest.raises(PermissionError), worker_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "file")


def fill_the_disk(path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_error_of_a_workers_own_work_stays_what_it_is(n_workers):
    with pytest.raises(OSError, match="No space left") as caught:
        list(map_files(fill_the_disk, PATHS, n_workers=n_workers))
    assert caught.value.errno == errno.ENOSPC


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_with_the_one_that_started_them():
    work = "print('at work', flush=True) or __import__('time').sleep(9999)"
    mapping = (
        "from src.system import processes",
        "processes.MIN_FILES = 1",
        f"list(processes.map_files(eval, [{work!r}], n_workers=2))",
    )
    command = [sys.executable, "-c", "\n".join(mapping)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "at work\n"
            children = children_of(process.pid)
            assert any(map(is_running, children))
        finally:
            process.kill()
    try:
        wait_until(lambda: not any(map(is_running, children)))
    finally:
        for child in filter(is_running, children):
            os.kill(child, signal.SIGKILL)


def test_a_stop_is_asked_for_by_a_signal_or_by_the_clock(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with StopRequest() as unlimited, StopRequest(101.0) as request:
        assert not request()
        clock[0] = 101.0
        assert request()
        assert request.received is None
        assert not unlimited()
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.received == signal.SIGTERM


def test_the_peak_of_a_process_is_in_bytes():
    block = np.ones(64 * 2**20 // 8)
    assert block.nbytes < process_peak() < 2**40
