"""The directions of docs and design, held by reading imports."""

import ast
import sys
from pathlib import Path

import pytest

from tests.made_predictions import save_run
from tests.paths import ROOT

COMMANDS_OF_SRC = {"train_runner", "scores", "compare", "submission", "export"}
BASE = {"system", "structures"}

# Who may import whom; the modules of a room may import each other.
MAY_IMPORT = {
    "system": set(),
    "structures": set(),
    "metric": set(),
    "radiographs": BASE,
    "retinanet": BASE,
    "datasets": BASE | {"radiographs"},
    "onnx_export": BASE | {"retinanet"},
    "challenge": BASE | {"datasets", "metric"},
    "experiments": BASE | {"datasets", "retinanet"},
    "prediction": BASE
    | {"challenge", "datasets", "experiments", "metric", "radiographs", "retinanet"},
    "scoring": BASE | {"experiments", "metric", "prediction"},
    "training": BASE | {"datasets", "experiments", "prediction", "retinanet"},
    "visualizations": BASE
    | {"datasets", "experiments", "metric", "prediction", "radiographs", "scoring"},
}
MAY_IMPORT["actions"] = set(MAY_IMPORT)
MAY_IMPORT |= {command: set(MAY_IMPORT) for command in COMMANDS_OF_SRC}
VAGUE_NAMES = {"utils", "helpers", "misc", "common", "util", "helper", "tools"}

# What a command does not import to show its help or to refuse a flag: train_runner, which is called
# again and again, none of all this.
SLOW_TO_IMPORT = {"torch"}
SLOW_TO_IMPORT_ALL = {"torch", "pandas", "cv2", "matplotlib", "pydicom", "tqdm", "numpy"}
USES_TORCH_ANYHOW = {"eda"}  # it shows the samples that a network gets

WRITES = (
    *(".write_text", ".write_bytes", ".to_csv", ".savez", ".savez_compressed", ".savefig"),
    *(".imwrite", ".save_as", ".dump", ".copyfile", ".download_url_to_file", "torch.save"),
)
SAFE_PLACES = {"replaced_file", "new_folder", "tempfile.TemporaryDirectory"}
# Functions that write into a folder of `new_folder`, into a file that its caller will rename, or
# into memory; one opens for reading in its own way, one breaks a file on purpose.
WRITE_ELSEWHERE = {
    "scripts/soak.py": {"_break_an_image"},
    "src/radiographs/challenge_dicom.py": {"_open_at_once"},
    "src/datasets/pixel_cache.py": {"_write_pixels", "write_index"},
    "src/system/folder_lock.py": {"_open_lock"},
    "src/onnx_export/graph.py": {"write_graph"},
    "scripts/import_rsna_release.py": {"_make_both_sets"},
    "scripts/radiograph_encodings.py": {"make_file"},
    "scripts/make_demo_dataset.py": {"_write_dicom"},
    "src/visualizations/inline_pictures.py": {"embed_figure"},
}

FILES = sorted((ROOT / "src").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


def imports_of(path):
    """The modules that a file names anywhere, with dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path):
    """The module of src, or its package, that a file belongs to."""
    return path.relative_to(ROOT / "src").with_suffix("").parts[0]


def is_run(path):
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in ast.parse(path.read_text()).body
    )


COMMANDS = [path for path in [*FILES, *SCRIPTS] if is_run(path)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    part = part_of(path)
    if path.name == "__init__.py" and path.parent == ROOT / "src":
        return
    assert part in MAY_IMPORT, f"{part} lies in no room of the table"
    parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("src.")}
    assert parts <= MAY_IMPORT[part] | {part}


def test_only_commands_and_what_all_rooms_share_lie_outside_the_rooms():
    outside = {path.stem for path in FILES if path.parent == ROOT / "src"} - {"__init__"}
    assert outside == COMMANDS_OF_SRC | {"metric", "structures"}
    rooms = {path.parent.name for path in FILES if path.parent.parent == ROOT / "src"}
    assert rooms | outside == set(MAY_IMPORT)


def test_the_table_has_no_circles():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [p for p in MAY_IMPORT if p not in order and MAY_IMPORT[p] - {p} <= set(order)]
        assert free, f"circle among {set(MAY_IMPORT) - set(order)}"
        order += free


def test_metric_needs_only_numpy():
    outside = {name.split(".")[0] for name in imports_of(ROOT / "src" / "metric.py")}
    assert outside - sys.stdlib_module_names - {"__future__"} == {"numpy"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) == "retinanet"], ids=name_of
)
def test_the_network_knows_no_data(path):
    outside = {name.split(".")[0] for name in imports_of(path)}
    assert outside.isdisjoint({"cv2", "pandas", "pydicom", "config", "matplotlib", "scripts"})


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "datasets"], ids=name_of)
def test_data_sets_know_no_network(path):
    imported = {name.split(".")[0] for name in imports_of(path)}
    assert imported.isdisjoint({"timm", "torchvision", "pretrainedmodels"})


def test_only_files_that_are_run_import_config():
    importing = {path for path in FILES if "config" in {n.split(".")[0] for n in imports_of(path)}}
    assert {name_of(path) for path in importing - set(COMMANDS)} == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_config_is_read_when_it_is_used(path):
    assert not [name for name in imports_of(path) if name.startswith("config.")]


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS, ROOT / "config.py"], ids=name_of)
def test_a_module_has_a_name_of_its_own(path):
    name = path.stem if path.name != "__init__.py" else path.parent.name
    assert name not in VAGUE_NAMES
    assert name not in sys.stdlib_module_names


def test_config_imports_only_the_standard_library():
    assert {name.split(".")[0] for name in imports_of(ROOT / "config.py")} <= {"os", "pathlib"}


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_commands_help_does_not_wait_for_imports(path, run_command):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    outcome = run_command("-X", "importtime", "-m", module, "--help", cwd=ROOT)
    assert outcome.out.startswith("usage: ")
    lines = outcome.err.splitlines()
    assert all(line.startswith("import time:") for line in lines)
    loaded = {line.split("|")[-1].strip() for line in lines}
    slow = SLOW_TO_IMPORT_ALL if path.stem == "train_runner" else SLOW_TO_IMPORT
    assert path.stem in USES_TORCH_ANYHOW or loaded & slow == set()


@pytest.mark.parametrize("flags", [["--no-such-flag"], ["--k", "1"], ["--model", "nothing"]])
def test_a_wrong_flag_of_train_runner_does_not_wait_for_imports(flags, run_command):
    command = ("-X", "importtime", "-m", "src.train_runner", *flags)
    outcome = run_command(*command, cwd=ROOT, ok=False)
    *lines, message = outcome.err.splitlines()
    assert message.startswith("error: ")
    loaded = {line.split("|")[-1].strip() for line in lines}
    assert "src.actions.flags" in loaded
    assert loaded & SLOW_TO_IMPORT_ALL == set()


def namespaces_of(node, function=""):
    """The functions under `node` that name argparse's Namespace."""
    if isinstance(node, ast.FunctionDef):
        function = node.name
    elif isinstance(node, ast.Attribute) and node.attr == "Namespace":
        yield function
    for child in ast.iter_child_nodes(node):
        yield from namespaces_of(child, function)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_below_the_command_line_flags_are_typed(path):
    reads_flags = name_of(path) in {"src/actions/flags.py", "src/system/command_line.py"}
    if reads_flags or part_of(path) in COMMANDS_OF_SRC - {"train_runner"}:
        return
    may = {"_parse_arguments"} if part_of(path) == "visualizations" else set()
    assert set(namespaces_of(ast.parse(path.read_text()))) <= may


def test_what_looks_at_saved_predictions_needs_no_torch(run_command, tmp_path):
    run_dir = save_run(tmp_path, 0, 1)
    predictions = run_dir / "predictions" / "000.npz"
    boxes, fused = tmp_path / "boxes.csv", tmp_path / "fused.csv"
    check_metric = ("--action", "check_metric", "--model", "demo", "--output-dir", tmp_path)
    commands = [
        ["src/train_runner.py", *check_metric],
        ["src/scores.py", run_dir, "--nms", "0.05", "--shrinks", "1"],
        ["src/compare.py", run_dir, run_dir, "--draws", "100", "--out", tmp_path / "compared"],
        ["src/visualizations/runs_index.py", run_dir, "--out", tmp_path / "index"],
        ["src/submission.py", "write", predictions, "--out", boxes, "--threshold", "0.3"],
        ["src/submission.py", "fuse", predictions, boxes, "--out", fused, "--method", "wbf"],
        [
            "src/submission.py",
            "fuse",
            predictions,
            boxes,
            "--out",
            tmp_path / "both_fold_0",
            "--method",
            "nms",
        ],
        *(
            [f"src/visualizations/plot_{name}.py", run_dir, "--out", tmp_path / f"{name}.png"]
            for name in ("sweep", "detections", "global_head", "numbers")
        ),
    ]
    code = "import runpy, sys; sys.modules['torch'] = None\n"
    for command in commands:
        code += f"sys.argv = {[str(word) for word in command]}\n"
        code += f"runpy.run_path({command[0]!r}, run_name='__main__')\n"
    run_command("-c", code, cwd=ROOT)


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_command_by_path_from_another_directory_refuses_an_unknown_flag(path, run_command):
    outcome = run_command(path, "--no-such-flag", ok=False)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "error" in outcome.err or Path(path).name in outcome.err


def unsafe_writes_of(node, function=""):
    """The functions under `node` that write outside of a `with` of `SAFE_PLACES`."""
    if isinstance(node, ast.With):
        opened = {ast.unparse(item.context_expr).partition("(")[0] for item in node.items}
        if SAFE_PLACES & opened:
            return
    if isinstance(node, ast.FunctionDef):
        function = node.name
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        mode = ast.unparse(node.args[0]) if node.args and called.endswith(".open") else ""
        if called.endswith(WRITES) or set("wax+") & set(mode):
            yield function
    for child in ast.iter_child_nodes(node):
        yield from unsafe_writes_of(child, function)


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=name_of)
def test_every_write_is_whole_or_not_at_all(path):
    if path != ROOT / "src" / "system" / "files.py":
        found = set(unsafe_writes_of(ast.parse(path.read_text())))
        assert found == WRITE_ELSEWHERE.get(name_of(path), set())
