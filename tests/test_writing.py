"""No writer leaves half a file, harms an older one or forgets a temporary one when it fails."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest

from src.system.files import OutputError
from tests.conftest import HANGS_AFTER
from tests.paths import ROOT
from tests.writers import LEFT_OVER, REPLACING, WRITERS, content_of, write_where_it_fails

HOW_IT_FAILS = ("0 bytes left", f"{LEFT_OVER} bytes left", "read-only")

ENDLESS = """
import sys
from pathlib import Path
from src.system.files import replaced_file

with replaced_file(Path(sys.argv[1])) as temporary, temporary.open("wb") as file:
    while True:
        file.write(bytes(1 << 20))
        print("written", flush=True)
"""


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Let all writers fail on a small file system of their own: nobody else sees this mount."""
    if shutil.which("unshare") is None:
        pytest.skip("needs Linux's unshare to mount a small file system")
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    folder = tmp_path_factory.mktemp("small")
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -m tests.writers "$1"'
    result = subprocess.run(
        ["unshare", "--mount", *as_root, "sh", "-c", script, "sh", folder, sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    if result.returncode != 0 and "Traceback" not in result.stderr:
        pytest.skip(f"may not mount a small file system: {' '.join(result.stderr.split())}")
    assert result.stderr == ""
    return json.loads(result.stdout)


@contextmanager
def limited_file_size():
    """Let no file of this process grow beyond 100 bytes, as under a quota.

    For the writer alone: what runs the tests may write its own output to a file.
    """
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, on_limit)


def fail_with(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def written(tmp_path, request):
    """Return the name of a writer and a folder that it has written to once."""
    folder = tmp_path / "with older files"
    folder.mkdir()
    if request.param in REPLACING:
        WRITERS[request.param](folder, 0)
    return request.param, folder


def assert_refused(name, folder, limit=None):
    with limit or nullcontext():
        message, is_as_before = write_where_it_fails(name, folder)
    assert message.startswith(f"{folder}/")
    assert "cannot be written" in message
    assert len(message.splitlines()) == 1
    assert is_as_before


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("how", HOW_IT_FAILS)
def test_a_writer_without_space_changes_nothing_and_says_so(failures, how, name):
    message, is_as_before = failures[how][name]
    assert "not writable" in message if how == "read-only" else "cannot be written" in message
    assert len(message.splitlines()) == 1
    assert is_as_before


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_a_writer_whose_write_fails_changes_nothing(written):
    name, folder = written
    assert_refused(name, folder, limit=limited_file_size())


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_a_writer_whose_flush_fails_changes_nothing(written, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    assert_refused(*written)


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_a_writer_whose_rename_fails_changes_nothing(written, monkeypatch):
    for rename in ("rename", "replace"):
        monkeypatch.setattr(os, rename, fail_with(errno.ENOSPC))
    assert_refused(*written)


@pytest.mark.parametrize("written", WRITERS, indirect=True)
def test_a_writer_that_nothing_stops_replaces_the_older_file(written):
    name, folder = written
    before = content_of(folder)
    WRITERS[name](folder, 1)
    after = content_of(folder)
    assert all(after[path] != content for path, content in before.items())
    assert not list(folder.glob(".*"))


def test_a_killed_writer_leaves_the_older_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_text("old")
    command = [sys.executable, "-c", ENDLESS, path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (leftover,) = (found for found in tmp_path.iterdir() if found != path)
    assert leftover.stat().st_size >= 3 << 20, "it was killed while it wrote"


def test_training_says_in_one_line_that_its_log_cannot_be_written(tmp_path, monkeypatch):
    import torch

    from src.experiments.runs import Run
    from src.experiments.table import EXPERIMENTS
    from src.retinanet.acceleration import Acceleration
    from src.training.options import TrainingOptions
    from src.training.run_files import TrainingFiles

    monkeypatch.setattr("src.training.run_files.SummaryWriter", fail_with(errno.ENOSPC))
    options = TrainingOptions(acceleration=Acceleration(device=torch.device("cpu")), seed=0)
    files = TrainingFiles(Run("demo", 0, "", tmp_path), EXPERIMENTS["demo"], options)
    with pytest.raises(OutputError, match="tensorboard: cannot be written: No space left"):
        files.log({"epoch": 0})
