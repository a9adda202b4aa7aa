"""Places that no command can use, and what a command is to say of them: one line at once."""

import builtins
import errno
import io
import os
from contextlib import contextmanager

import pytest

NAME = "place"  # part of every path, for the message


def make_long(folder):
    return folder / (NAME + "x" * 300)


def make_below_file(folder):
    (folder / NAME).write_text("no folder\n")
    return folder / NAME / "below"


def make_file(folder):
    (folder / NAME).write_text("no folder, and nothing that is read either\n")
    return folder / NAME


def make_loop(folder):
    (folder / NAME).symlink_to(folder / NAME)
    return folder / NAME


def make_below_loop(folder):
    return make_loop(folder) / "below"


def make_denied(folder):
    return folder / f"denied {NAME}" / "below"


def make_pipe(folder):
    os.mkfifo(folder / NAME)
    return folder / NAME


def make_device(folder):
    (folder / NAME).symlink_to("/dev/zero")
    return folder / NAME


PLACES = {
    function.__name__.removeprefix("make_"): function
    for function in (make_long, make_below_file, make_file, make_loop, make_below_loop,
                     make_denied, make_pipe, make_device)
}  # fmt: skip
CALLS = ((os, "stat"), (os, "lstat"), (os, "open"), (os, "listdir"), (os, "scandir"),
         (os, "mkdir"), (io, "open"), (builtins, "open"))  # fmt: skip


@contextmanager
def denied_places():
    """Let the system refuse what lies in a folder that may not be entered; root may enter all."""

    def refusing(call):
        def refuse_or_call(path, *arguments, **more):
            if not isinstance(path, int) and f"denied {NAME}/" in os.fsdecode(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return call(path, *arguments, **more)

        return refuse_or_call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, refusing(getattr(module, name)))
        yield
