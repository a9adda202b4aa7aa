import argparse
import errno
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from src.system.command_line import CommandParser, name_part, natural, report_errors
from src.system.errors import InputError, Interrupted
from src.system.streams import MAX_MESSAGE, named_warnings
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


@pytest.mark.parametrize("default", [None, [7], (7, 8)])
@pytest.mark.parametrize("nargs", ["+", "*"])
def test_a_flag_of_several_words_that_is_given_again_keeps_them_all(nargs, default):
    parser = CommandParser()
    group = parser.add_argument_group("numbers")
    group.add_argument("--fold", type=int, nargs=nargs, default=default)
    parser.add_argument("--seed", type=int)
    assert parser.parse_args([]).fold == default
    words = ["--fold", "0", "1", "--seed", "3", "--fold", "2", "--seed", "4"]
    for _ in range(2):  # the first command line changes no default
        assert vars(parser.parse_args(words)) == {"fold": [0, 1, 2], "seed": 4}


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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP])
def test_an_error_of_the_system_about_a_file_is_one_line(capfd, number):
    with pytest.raises(SystemExit) as stop, report_errors():
        raise OSError(number, os.strerror(number), b"/some/file \xff")
    assert stop.value.code == 2
    assert capfd.readouterr().err == f"error: /some/file \\udcff: {os.strerror(number)}\n"


def test_an_error_of_the_system_without_a_file_keeps_its_traceback():
    with pytest.raises(OSError, match="no file"), report_errors():
        raise OSError(errno.EIO, "no file")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (None, 75)])
def test_a_program_that_was_stopped_says_so_by_its_exit_code(capfd, number, code):
    with pytest.raises(SystemExit) as stop, report_errors():
        raise Interrupted("stopped; go on", number)
    assert stop.value.code == code
    assert capfd.readouterr().err == "stopped; go on\n"


def test_a_broken_pipe_of_another_process_keeps_its_traceback(capfd):
    with pytest.raises(BrokenPipeError), report_errors():
        raise BrokenPipeError


def test_a_message_is_one_line_that_a_terminal_can_show(capfd):
    with pytest.raises(SystemExit), report_errors():
        raise InputError("a\nb \x1b[31m \udcff ✓ " + "x" * 10**6)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: a b \\x1b[31m \\udcff ✓ xxx")
    assert len(line) < 2 * MAX_MESSAGE


def test_a_wrong_flag_of_any_length_is_told_in_one_line(capfd):
    parser = CommandParser()
    parser.add_argument("--seed", type=natural)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--seed", "\udcff\n" * 10**6])
    assert stop.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert len(line) < 2 * MAX_MESSAGE


def test_a_warning_is_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with report_errors():
        line = warnings.formatwarning("a\nb \udcff", UserWarning, "library.py", 1)
    assert line == "warning: a b \\udcff\n"


# Streams that are closed or full


COMMAND = r"""
import os, sys
from tqdm import tqdm
from src.system.command_line import report_errors
from src.system.errors import InputError
with report_errors():
    for _ in tqdm(range(2)):
        print("caf\u00e9 \udcff")
    os.write(2, b"a library's own words\n")
    match sys.argv[1]:
        case "mistake": raise InputError("the user's")
        case "file": open("/no/such/file")
        case "bug": raise KeyError("ours")
"""


def run_in_shell(ending, redirections, tmp_path):
    """Run COMMAND, and return its exit code and what standard output and error got."""
    paths = [tmp_path / "out", tmp_path / "err"]
    for path in paths:
        path.touch()
    command = f"'{sys.executable}' -c \"$0\" {ending} {redirections}"
    code = subprocess.run(
        ["sh", "-c", command, COMMAND],
        cwd=ROOT, env=os.environ | {"OUT": str(paths[0]), "ERR": str(paths[1])},
    ).returncode  # fmt: skip
    return code, *(path.read_text() for path in paths)


ENDINGS = {
    "well": (0, ""),
    "mistake": (2, "the user's"),
    "file": (2, "/no/such/file: No such file"),
    "bug": (1, "ours"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_a_closed_stream_neither_hides_an_error_nor_makes_one(tmp_path, ending, closed):
    redirections = {"1": '2>"$ERR" >&-', "2": '>"$OUT" 2>&-', "0 1 2": "<&- >&- 2>&-"}[closed]
    code, out, err = run_in_shell(ending, redirections, tmp_path)
    expected, message = ENDINGS[ending]
    assert code == expected
    told = {"1": err, "2": out, "0 1 2": message}[closed]
    assert message in told
    if closed == "2":
        assert out.count("\n") == 2 + (ending != "well")  # nothing of the library's


def test_a_standard_error_that_takes_no_more_ends_with_one_line(tmp_path):
    code, out, _ = run_in_shell("well", '>"$OUT" 2>/dev/full', tmp_path)
    assert code == 2
    assert out.splitlines()[-1] == (
        "error: standard error cannot be written: No space left on device"
    )


def test_a_wrong_flag_is_told_on_the_stream_that_is_open(tmp_path):
    path = tmp_path / "out"
    command = "from src.system.command_line import CommandParser; CommandParser().parse_args()"
    code = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -c '{command}' --nothing >'{path}' 2>&-"], cwd=ROOT
    ).returncode
    assert code == 2
    assert path.read_text() == "error: unrecognized arguments: --nothing; see --help\n"


def test_what_a_stream_has_no_signs_for_is_printed_as_escapes(tmp_path):
    code, out, _ = run_in_shell("well", '>"$OUT"', tmp_path)
    assert (code, out.splitlines()[0]) == (0, "café \\udcff")


def test_a_command_without_a_standard_output_works(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with report_errors():
        print("to nobody")
    sys.stdout.close()


def test_what_a_library_warns_of_names_the_file_and_comes_once(tmp_path):
    def read(path):
        with named_warnings(path):
            warnings.warn("some odd value", UserWarning, stacklevel=1)
            warnings.warn("some odd value", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning) as told:
        for name in ("a", "b", "a"):
            read(tmp_path / name)
    assert [str(warning.message) for warning in told] == [
        f"{tmp_path / name}: some odd value" for name in ("a", "b")
    ]
