import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from src.system.command_line import CommandParser, name_part, report_errors
from tests.paths import ROOT


def test_help_shows_the_defaults_that_say_something(capsys):
    parser = CommandParser()
    parser.add_argument("--fold", default=0, help="first")
    parser.add_argument("--sizes", default=(1, 2), help="second")
    parser.add_argument("--out", help="third")
    parser.add_argument("--all", action="store_true", help="fourth")
    parser.print_help()
    defaults = [line.partition("(")[2] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert defaults == ["default: 0)", "default: 1 2)", "", ""]


@pytest.mark.parametrize("text", ["", "a", "b-2", "1.5_x"])
def test_a_plain_tag_can_be_part_of_a_name(text):
    assert name_part(text) == text


@pytest.mark.parametrize("text", ["a/b", "..\\x", "a b", "é", "a\n"])
def test_what_makes_no_name_of_a_file_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="use letters, digits"):
        name_part(text)


def test_a_reader_that_leaves_ends_a_command_in_silence():
    code = """
from src.system.command_line import report_errors
with report_errors():
    print("much" * 100_000)
    print("more")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13  # SIGPIPE


@pytest.mark.parametrize("flags", [(), ("-u",)])
def test_a_standard_output_that_takes_no_more_ends_with_one_line(flags):
    code = (
        "from src.system.command_line import report_errors\n"
        "with report_errors(): print('much' * 10_000)"
    )
    with Path("/dev/full").open("w") as full:
        outcome = subprocess.run(
            [sys.executable, *flags, "-c", code],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert outcome.returncode == 2
    message = "error: standard output cannot be written: No space left on device\n"
    assert outcome.stderr == message


def test_an_error_of_the_system_elsewhere_keeps_its_traceback():
    with pytest.raises(FileNotFoundError), report_errors():
        Path("/no/such/file").read_bytes()


def test_a_broken_pipe_of_another_process_keeps_its_traceback(capfd):
    with pytest.raises(BrokenPipeError), report_errors():
        raise BrokenPipeError


def test_a_command_without_a_standard_output_works(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with report_errors():
        print("to nobody")
