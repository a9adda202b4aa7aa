import dataclasses
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from src.actions.flags import ACTIONS, FIELDS, Flags, parse_flags
from src.system.command_line import flag_of

PREDICT = ("--action", "generate_predictions")


def parse(*argv):
    return parse_flags(argv, data_dir=Path("data"), output_dir=Path("output"))


@pytest.fixture
def refuse(capsys):
    """Return a function that parses a wrong command line and gives back its one line."""

    def call(*argv):
        with pytest.raises(SystemExit) as stop:
            parse(*argv)
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


@pytest.fixture(scope="module")
def help_text():
    """Return what --help says, as wide as it likes."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setenv("COLUMNS", "200")
        lines: list[str] = []
        patch.setattr("sys.stdout.write", lines.append)
        parse("--help")
    return "".join(lines)


# What comes of a command line


def test_without_flags_the_fields_have_their_defaults():
    assert parse() == Flags(data_dir=Path("data"), output_dir=Path("output"))


def test_every_value_has_the_type_of_its_field():
    flags = parse(
        *PREDICT, "--model", "demo", "twin", "--folds", "0", "2", "--epochs", "3", "4",
        "--run-weights", "1", "2", "3", "0.5", "--threshold", "1", "--split", "test",
        "--out", "here", "--tta", "hflip", "--cache",
    )  # fmt: skip
    assert (flags.models, flags.folds, flags.epoch) == (("demo", "twin"), (0, 2), (3, 4))
    assert flags.run_weights == (1.0, 2.0, 3.0, 0.5)
    assert (flags.threshold, flags.out, flags.tta) == (1.0, Path("here"), "hflip")
    assert (flags.cache, flags.overwrite) == (True, False)


def test_a_list_that_is_given_in_parts_is_whole():
    words = ("--set", "img_size=224", "--folds", "0", "--set", "hflip=true", "--folds", "1")
    flags = parse(*words)
    assert flags.settings == ("img_size=224", "hflip=true")
    assert flags.folds == (0, 1)


def test_a_list_is_never_left_in_a_field():
    hints = get_type_hints(Flags)
    assert not [name for name, hint in hints.items() if "list" in str(hint)]
    assert hash(parse("--action", "check_metric", "--epoch", "1")) is not None


def test_flags_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().fold = 1


def test_flags_derive_model_tag_and_cache():
    flags = parse("--model", "demo", "--run", "a", "--debug", "--cache")
    assert (flags.model, flags.tag, flags.cache_dir) == ("demo", "a_debug", Path("output/cache"))
    assert (parse("--debug").tag, parse("--run", "a").tag, parse().tag) == ("debug", "a", "")
    assert parse().cache_dir is None


@pytest.mark.parametrize(
    ("words", "debug"),
    [([], False), (["--debug"], True), (["--debug", "True"], True), (["--debug", "False"], False)],
)
def test_debug_does_what_it_says(words, debug):
    assert parse(*words).debug is debug


@pytest.mark.parametrize(
    ("words", "ensemble", "folder"),
    [
        ([], False, False),
        (["--split", "test"], False, False),
        (["--input", "x"], False, True),
        (["--folds", "0"], True, False),
        (["--folds", "0", "--split", "test"], True, True),
        (["--tta", "hflip", "--split", "test"], True, True),
        (["--run-weights", "1", "--split", "test"], True, True),
        (["--model", "a", "b", "--split", "test"], True, True),
    ],
)
def test_an_ensemble_of_test_images_and_input_fill_a_folder(words, ensemble, folder):
    flags = parse(*PREDICT, *words)
    assert (flags.asks_for_ensemble, flags.fills_folder) == (ensemble, folder)


# What is refused


def words_of(each):
    """A flag with a value that it takes."""
    options = each.metadata["options"]
    if options.get("action") == "store_true":
        return [flag_of(each)]
    value = options["choices"][0] if options["choices"] else "1"
    return [flag_of(each), value]


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "action"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_flag_is_taken_by_its_actions_alone(refuse, name, action):
    each = FIELDS[name]
    words = ["--action", action, *words_of(each)]
    if action in each.metadata["actions"]:
        needs = {"weights_dir": ["--from-epoch", "1"] if action == "train" else [],
                 "skip_unreadable": ["--input", "x"], "overlays": ["--input", "x"],
                 "out": [] if action == "check_data" else ["--input", "x"],
                 "weights": ["--input", "x"], "combine": ["--folds", "0"],
                 "k": ["--folds", "0"]}  # fmt: skip
        assert getattr(parse(*words, *needs.get(name, [])), name) is not None
    else:
        assert refuse(*words).startswith(f"error: --action {action} takes no {flag_of(each)}; ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "ensemble"], 'tags ending in "ensemble" are reserved for ensembles'),
        (["--run", "a_ensemble"], 'tags ending in "ensemble" are reserved for ensembles'),
        (["--run", "a/b"], "argument --run: 'a/b': use letters, digits"),
        (["--model", "a", "b"], "--action train takes one --model, not 2"),
        (["--weights_dir", "x"], "--weights_dir needs --from-epoch"),
        *(
            (["--init-weights", "x", *other], "--init-weights cannot be combined with --")
            for other in (
                ["--from-epoch", "1"],
                ["--weights_dir", "y", "--from-epoch", "1"],
                ["--encoder-weights", "y"],
            )
        ),
        ([*PREDICT, "--out", "x"], "--out needs --input, or --split test and an ensemble"),
        ([*PREDICT, "--out", "x", "--tta", "hflip"], "--out needs --input, or --split test and"),
        ([*PREDICT, "--overlays"], "--overlays needs --input, or --split test and an ensemble"),
        ([*PREDICT, "--skip-unreadable"], "--skip-unreadable needs --input"),
        ([*PREDICT, "--k", "1"], "--k needs an ensemble: several networks, or --tta"),
        ([*PREDICT, "--combine", "mean"], "--combine needs an ensemble"),
        (
            [*PREDICT, "--model", "a", "b", "--run", "c", "--run-weights", "1"],
            "--run-weights: 1 weights for 2 runs, which are a_c_fold_0, b_c_fold_0;",
        ),
        ([*PREDICT, "--run-weights", "0"], "--run-weights: one of them must be greater than 0"),
        ([*PREDICT, "--weights", "a"], "--weights needs --input"),
        *(
            ([*PREDICT, "--weights", "a", "--input", "b", *other], "--weights cannot be combined")
            for other in (["--model", "demo"], ["--fold", "0"], ["--epochs", "3"], ["--run", "a"])
        ),
        ([*PREDICT, "--folds", "1", "--fold", "0"], "--folds cannot be combined with --fold"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(refuse, words, message):
    assert message in refuse(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["--run", "ensemble_of_one"],
        ["--run", "myensemble"],
        ["--action", "check_metric", "--run", "ensemble"],
        ["--weights_dir", "x", "--from-epoch", "1"],
        ["--folds", "0", "1", "--set", "fit=pad", "img_size=224"],
        [*PREDICT, "--weights", "a", "b", "--input", "c", "--run-weights", "1", "2"],
        ["--init-weights", "x"],
        ["--init-weights", "x", "--resume"],
        ["--init-weights", "x", "--from-experiment", "y"],
        [*PREDICT, "--out", "x", "--input", "y"],
        [*PREDICT, "--overlays", "--split", "test", "--tta", "hflip"],
        [*PREDICT, "--folds", "0", "1", "--combine", "mean"],
        [*PREDICT, "--folds", "0", "1", "--run-weights", "1", "0"],
    ],
)
def test_flags_that_fit_together_are_taken(words):
    parse(*words)


# What --help says


def groups_of(text):
    """The title of each group of --help, and its lines."""
    parts = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_help_is_in_groups_first_what_every_action_takes(help_text):
    assert list(groups_of(help_text)) == ["options", "every action", *ACTIONS]


def test_the_usage_fits_in_a_few_lines(help_text):
    usage = help_text.partition("\n\n")[0]
    assert usage.startswith("usage: ")
    assert len(usage) < 160
    assert "--action" in usage
    assert "--model" in usage


def test_a_group_of_help_names_all_that_its_action_takes(help_text):
    groups = groups_of(help_text)
    for each in FIELDS.values():
        actions = each.metadata["actions"]
        titles = ["every action"] if actions == ACTIONS else actions
        named = [title for title in groups if re.search(rf"{flag_of(each)}\b(?!-)", groups[title])]
        assert named == list(titles), each.name


def test_help_describes_each_flag_once_in_a_few_words(help_text):
    for each in FIELDS.values():
        text = each.metadata["options"]["help"]
        assert help_text.count(text) == 1
        assert len(text) <= 54  # one line of a terminal of 80 columns
