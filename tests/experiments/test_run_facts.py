import json

import pytest

from src.experiments.experiment import FORMERLY
from src.experiments.run_facts import differing_settings, find_runs, read_run_facts
from src.system.errors import InputError
from tests.made_predictions import save_run
from tests.made_runs import STORED, describe_run


def test_facts_are_what_the_runs_own_file_says(tmp_path):
    facts = read_run_facts(describe_run(tmp_path, "left_the_table", fold=2, tag="a", seed=7))
    assert (facts.model, facts.tag, facts.fold, facts.seed) == ("left_the_table", "a", 2, 7)
    assert facts.settings["encoder"] == STORED["settings"]["encoder"]
    assert (facts.settings["precision"], facts.settings["data"]) == ("fp32", "0123456789ab")
    assert facts.command == "src/train_runner.py --run 'a b'"
    assert facts.ended_by == "all epochs"
    assert facts.date == "2026-01-02T03:04:05+00:00"


def test_a_setting_that_an_old_run_lacks_is_what_runs_did_before_it_came(tmp_path):
    facts = read_run_facts(describe_run(tmp_path))
    assert facts.settings["grey"] == FORMERLY["grey"]
    assert facts.settings["pyramid_levels"] == (3, 4)


def test_a_folder_without_a_description_says_nothing(tmp_path):
    facts = read_run_facts(save_run(tmp_path, 0))
    assert (facts.model, facts.fold, facts.seed, facts.settings) == (None, None, None, {})


@pytest.mark.parametrize("odd", [[], {"a": 1}, "fold", True, None, 1.5])
def test_fields_of_an_odd_kind_are_unknown(tmp_path, odd):
    run_dir = describe_run(tmp_path)
    content = dict.fromkeys(("fold", "seed", "settings", "command", "init_weights"), odd)
    (run_dir / "experiment.json").write_text(json.dumps({"model": "demo", **content}))
    facts = read_run_facts(run_dir)
    assert (facts.fold, facts.seed, facts.command) == (None, None, "")


def test_only_settings_in_which_runs_differ_are_named(tmp_path):
    runs = [
        describe_run(tmp_path, fold=0),
        describe_run(tmp_path, fold=1, settings={"learning_rate": 0.5}),
        describe_run(tmp_path, tag="c", data_fingerprint="f" * 64),
        save_run(tmp_path / "without settings", 0),
    ]
    assert differing_settings(map(read_run_facts, runs)) == ["learning_rate", "data"]
    assert differing_settings([read_run_facts(runs[0])]) == []


def test_a_whole_number_is_no_other_setting_than_the_same_with_a_point(tmp_path):
    runs = [
        describe_run(tmp_path, fold=n, settings={"clip_norm": v}) for n, v in ((0, 1), (1, 1.0))
    ]
    assert differing_settings(map(read_run_facts, runs)) == []


def test_runs_are_found_below_a_folder_and_once(tmp_path):
    first, second = describe_run(tmp_path / "a", fold=1), describe_run(tmp_path / "b" / "c")
    interrupted = describe_run(tmp_path, "killed")  # in its first epoch: nothing but this file
    predicted = save_run(tmp_path / "without description", 0)
    (tmp_path / "link").symlink_to(tmp_path)  # no way around in a circle
    found = find_runs([second, tmp_path])
    assert found == [second, first, interrupted, predicted]


def test_the_common_name_of_folds_stands_for_them(tmp_path):
    folds = [describe_run(tmp_path, fold=fold) for fold in (0, 1)]
    describe_run(tmp_path, "other")
    assert find_runs([tmp_path / "demo"]) == folds


def test_a_link_to_a_run_is_the_run(tmp_path):
    run_dir, link = describe_run(tmp_path / "runs"), tmp_path / "link"
    link.symlink_to(run_dir)
    assert find_runs([link, run_dir]) == [link]


def test_what_was_predicted_for_other_images_is_no_run(tmp_path):
    run_dir = describe_run(tmp_path)
    for place in (run_dir / "inputs", tmp_path / "elsewhere"):
        place.mkdir()
        (place / "experiment.json").write_text(json.dumps({"model": "demo", "members": []}))
    assert find_runs([tmp_path]) == [run_dir]


@pytest.mark.parametrize("name", ["missing", "empty", "file"])
def test_a_place_without_a_run_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=name):
        find_runs([describe_run(tmp_path / "runs"), tmp_path / name])
