import errno
import fcntl
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from src.system.files import OutputError
from src.system.folder_lock import LOCK_NAME, NO_LOCKS, locked_dir
from tests.paths import ROOT

HOLD = """
import sys
from pathlib import Path
from src.system.folder_lock import locked_dir
with locked_dir(Path(sys.argv[1]), "works there"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held_elsewhere(path):
    """Let another process hold a folder, until a line is written to it, or to the block's end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_that_another_process_holds_is_refused(tmp_path):
    with held_elsewhere(tmp_path) as holder:
        words = rf"process {holder.pid} on \S+ works there; come later$"
        with (
            pytest.raises(OutputError, match=words),
            locked_dir(tmp_path, "works there; come later"),
        ):
            pass
    with locked_dir(tmp_path, "works there"):  # the holder was killed
        assert f"process {os.getpid()} on " in (tmp_path / LOCK_NAME).read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_waited_for_if_asked(tmp_path):
    told = []
    with held_elsewhere(tmp_path) as holder:

        def let_go(message):
            told.append(message)
            holder.stdin.write("\n")
            holder.stdin.flush()

        with locked_dir(tmp_path, "works there", wait=let_go):
            # The holder has removed its own lock file; this process holds a new one.
            assert f"process {os.getpid()} on " in (tmp_path / LOCK_NAME).read_text()
        assert holder.wait() == 0
    assert len(told) == 1
    assert told[0].startswith(f"{tmp_path}: process {holder.pid} on ")


def check_refused(folder, match):
    """Check that a folder cannot be held, and that nothing in it changes."""
    before = {path: path.lstat() for path in folder.iterdir()}
    with pytest.raises(OutputError, match=match) as caught, locked_dir(folder, "works there"):
        pass
    assert len(str(caught.value).splitlines()) == 1
    assert {path: path.lstat() for path in folder.iterdir()} == before


def fail_to_lock(monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", fail)


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_drive_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, number):
    fail_to_lock(monkeypatch, number)
    expected = pytest.warns(UserWarning, match=f"{tmp_path}: its drive has no locks")
    with expected, locked_dir(tmp_path, "works there"):
        assert (tmp_path / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_lock_that_fails_is_not_taken_for_another_process(tmp_path, monkeypatch, number):
    fail_to_lock(monkeypatch, number)
    (tmp_path / LOCK_NAME).touch()
    check_refused(tmp_path, f"^{tmp_path}: cannot be locked: {os.strerror(number)}$")


def test_a_lock_that_another_users_process_left_is_explained(tmp_path, monkeypatch):
    lock = tmp_path / LOCK_NAME
    lock.write_text("process 7 on elsewhere\n")
    open_file = os.open

    def refuse(path, *rest, **more):
        if path == lock:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open_file(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    check_refused(tmp_path, rf"{LOCK_NAME}: .* Permission denied: .* remove the file")


def make_link(lock, target):
    lock.symlink_to(target)


def make_hard_link(lock, target):
    lock.hardlink_to(target)


def make_copy(lock, target):
    lock.write_bytes(target.read_bytes())


def make_pipe(lock, target):
    os.mkfifo(lock)


def make_folder(lock, target):
    lock.mkdir()


def make_socket(lock, target):
    name = os.path.relpath(lock)  # the whole path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)


@pytest.mark.parametrize(
    "make", [make_link, make_hard_link, make_copy, make_pipe, make_folder, make_socket]
)
def test_what_has_the_locks_name_by_chance_is_left_alone(tmp_path, monkeypatch, make):
    target = tmp_path / "precious"
    target.write_text("years of work")
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    make(folder / LOCK_NAME, target)
    check_refused(folder, rf"{LOCK_NAME}: is a link, or something else than the lock")
    assert target.read_text() == "years of work"


def test_a_link_to_nothing_makes_no_file(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK_NAME).symlink_to(tmp_path / "new")
    check_refused(folder, "is a link")
    assert not (tmp_path / "new").exists()


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path):
    (tmp_path / LOCK_NAME).write_text("process 7 on elsewhere\n")
    with locked_dir(tmp_path, "works there"):
        assert (tmp_path / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []
