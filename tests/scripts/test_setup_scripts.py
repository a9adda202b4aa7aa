"""The set-up scripts, with stand-ins for kaggle, pip, conda and df: no network, nothing installed.

Every test works in a folder with a space in its name.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import HANGS_AFTER

ROOT = Path(__file__).resolve().parents[2]
SHELL_SCRIPTS = sorted([ROOT / "create_env.sh", ROOT / ".ci/run", *(ROOT / "scripts").glob("*.sh")])
REQUIREMENTS = ("requirements.txt", "requirements-export.txt", "requirements-pretrained.txt")
INCLUDED = [f"-r ../{name}" for name in REQUIREMENTS]  # in the tests' own
COMPETITION = "rsna-pneumonia-detection-challenge"

# "train-a" has two boxes, so two rows: rows and patients differ, as in the real tables.
FILES = {
    "stage_2_train_labels.csv": (
        "patientId,x,y,width,height,Target\n"
        "train-a,1,2,3,4,1\ntrain-a,5,6,7,8,1\ntrain-b,,,,,0\ntrain-c,,,,,0\n"
    ),
    "stage_2_detailed_class_info.csv": (
        "patientId,class\ntrain-a,Lung Opacity\ntrain-a,Lung Opacity\n"
        "train-b,Normal\ntrain-c,No Lung Opacity / Not Normal\n"
    ),
    "stage_2_sample_submission.csv": "patientId,PredictionString\ntest-a,\ntest-b,\n",
    "stage_2_train_images/train-a.dcm": "pixels of a" * 200,
    "stage_2_train_images/train-b.dcm": "pixels of b" * 200,
    "stage_2_train_images/train-c.dcm": "pixels of c" * 200,
    "stage_2_test_images/test-a.dcm": "pixels of test a" * 200,
    "stage_2_test_images/test-b.dcm": "pixels of test b" * 200,
}

# Appends to the file that an earlier call began, like the real client; stops after FAKE_STOP bytes.
FAKE_KAGGLE = f"""#!/usr/bin/env bash
echo "$*" >>"$FAKE_LOG"
if [[ -n ${{FAKE_MESSAGE:-}} ]]; then echo "$FAKE_MESSAGE" >&2; exit 1; fi
[[ $1 == competitions && $2 == download && $3 == -c && $4 == {COMPETITION} && $5 == -p ]] || exit 9
if [[ -d $FAKE_ARCHIVE ]]; then cp "$FAKE_ARCHIVE"/* "$6"; exit; fi
out=$6/{COMPETITION}.zip
begun=$(cat "$out" 2>/dev/null | wc -c)
echo "resuming from $begun"
tail -c +$((begun + 1)) "$FAKE_ARCHIVE" | head -c "${{FAKE_STOP:-1000000}}" >>"$out"
exit "${{FAKE_STATUS:-0}}"
"""

FAKE_DF = """#!/usr/bin/env bash
echo "Filesystem 1024-blocks Used Available Capacity Mounted on"
echo "//server/a share 99999999 1234567 ${FAKE_FREE_KB:-71957488} 27% /mnt/a disk"
"""

# Makes a folder that looks like a venv whose Python is this script again.
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ ${FAKE_PYTHON_TOO_OLD:-} ]]; then exit 1; fi
case "$*" in
    "-m venv"*)
        dir=${!#}
        mkdir -p "$dir/bin"
        cp "$0" "$dir/bin/python"
        echo "VIRTUAL_ENV='$dir'" >"$dir/bin/activate"
        ;;
    "-m pip"*) status=${FAKE_PIP_STATUS:-0} ;;
    --version) echo "Python 3.11.0" ;;
    *) exit 0 ;;
esac
echo "$*" >>"$FAKE_LOG"
exit "${status:-0}"
"""

FAKE_CONDA = """#!/usr/bin/env bash
echo "conda $*" >>"$FAKE_LOG"
if [[ $1 == info ]]; then echo "$FAKE_CONDA_BASE"; exit; fi
[[ $* == "create --yes --quiet --prefix "*" python=3.11 pip" ]] || exit 9
mkdir -p "$5/conda-meta" "$5/bin"
cp "$FAKE_CONDA_BASE/python3" "$5/bin/python"
"""


def write_command(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(
    *command: str | Path, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with exactly this environment; standard output and error in one text."""
    return subprocess.run(
        [str(word) for word in command],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a b"
    path.mkdir()
    return path


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_script_parses(script: Path):
    result = run("bash", "-n", script, env=os.environ)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_script_is_executable(script: Path):
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck():
    result = run("shellcheck", *SHELL_SCRIPTS, env=os.environ)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", [*REQUIREMENTS, "tests/requirements.txt"])
def test_requirements_are_exact_pins(name: str):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    lines = [line for line in lines if line and line not in INCLUDED]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line


def test_tests_requirements_include_the_project():
    assert set(INCLUDED) <= set((ROOT / "tests/requirements.txt").read_text().splitlines())


def test_dockerfile_installs_requirements_and_no_versions_of_its_own():
    lines = [
        line
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    installs = [line for line in lines if re.search(r"\bpip3? install\b", line)]
    assert installs == ["RUN pip install --no-cache-dir --requirement /app/requirements.txt"]
    assert "COPY requirements.txt /app/" in lines
    assert not [line for line in lines if "==" in line]


class Download:
    """dataset_download.sh with a stand-in for Kaggle's client, and the folder it fills."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.dir = folder / "the data"
        self.archive = folder / "archive.zip"
        self.log = folder / "kaggle.log"
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHON": sys.executable,
            "FAKE_ARCHIVE": str(self.archive),
            "FAKE_LOG": str(self.log),
        }
        write_command(self.bin / "kaggle", FAKE_KAGGLE)
        write_command(self.bin / "df", FAKE_DF)
        self.write_archive(FILES)

    def write_archive(self, files: Mapping[str, str | bytes]) -> None:
        with zipfile.ZipFile(self.archive, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    def run(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        script = ROOT / "scripts/dataset_download.sh"
        return run("bash", script, *(args or [self.dir]), env={**self.env, **env})

    @property
    def n_calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def read(self) -> dict[str, str]:
        paths = [path for path in self.dir.rglob("*") if path.is_file()]
        return {path.relative_to(self.dir).as_posix(): path.read_text() for path in paths}


@pytest.fixture
def download(folder: Path) -> Download:
    return Download(folder)


def zipped(name: str, content: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_download_leaves_exactly_the_layout(download: Download):
    result = download.run()
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES
    assert "3 training images, 2 test images" in result.stdout
    assert not (download.dir / ".download").exists()


@pytest.mark.parametrize("data_dir", ["the data", "{folder}/the data"])
def test_download_goes_to_the_configured_folder(download: Download, folder: Path, data_dir: str):
    script = ROOT / "scripts/dataset_download.sh"
    env = {**download.env, "PNEUMONIA_DATA_DIR": data_dir.format(folder=folder)}
    result = run("bash", script, env=env, cwd=folder)
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES


def test_download_unpacks_tables_zipped_within_the_archive(download: Download):
    labels = "stage_2_train_labels.csv"
    files: dict[str, str | bytes] = {name: FILES[name] for name in FILES if name != labels}
    download.write_archive({**files, f"{labels}.zip": zipped(labels, FILES[labels])})
    result = download.run()
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES


def test_download_takes_separate_archives(download: Download, folder: Path):
    parts = folder / "parts"
    parts.mkdir()
    for name in ("stage_2_train_images", "stage_2_test_images"):
        with zipfile.ZipFile(parts / f"{name}.zip", "w") as archive:
            for path in FILES:
                if path.startswith(name):
                    archive.writestr(Path(path).name, FILES[path])
    for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"):
        (parts / f"{name}.zip").write_bytes(zipped(name, FILES[name]))
    name = "stage_2_sample_submission.csv"
    (parts / name).write_text(FILES[name])

    result = download.run(FAKE_ARCHIVE=str(parts))
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES


def test_download_complete_data_is_left_alone(download: Download):
    download.run()
    result = download.run(FAKE_MESSAGE="must not be called")
    assert result.returncode == 0
    assert "is complete" in result.stdout
    assert download.n_calls == 1


def test_download_complete_data_needs_no_client(download: Download):
    download.run()
    (download.bin / "kaggle").unlink()
    assert download.run().returncode == 0


# The real client ends with status 0 when it is interrupted by Ctrl-C, with 1 on a lost connection.
@pytest.mark.parametrize("status", ["0", "1"])
def test_download_interrupted_is_resumed(download: Download, status: str):
    result = download.run(FAKE_STOP="3000", FAKE_STATUS=status)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert not (download.dir / "stage_2_train_images").exists()

    result = download.run()
    assert result.returncode == 0, result.stdout
    assert "resuming from 3000" in result.stdout
    assert download.read() == FILES


def test_download_interrupted_unpacking_is_done_again(download: Download):
    left_over = download.dir / ".download/unpacking/stage_2_train_images/half.dcm"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    result = download.run()
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES


def test_download_interrupted_moving_is_continued(download: Download):
    download.run()
    ready = download.dir / ".download/ready"
    ready.mkdir(parents=True)
    (download.dir / "stage_2_test_images").rename(ready / "stage_2_test_images")
    result = download.run(FAKE_MESSAGE="must not be called")
    assert result.returncode == 0, result.stdout
    assert download.read() == FILES


def test_download_missing_image_is_noticed(download: Download):
    download.write_archive({name: FILES[name] for name in FILES if "train-b" not in name})
    result = download.run()
    assert result.returncode == 1
    assert "stage_2_train_images has 2 images" in result.stdout
    assert "names 3 patients" in result.stdout
    assert not (download.dir / "stage_2_train_images").exists()


@pytest.mark.parametrize("ready", [False, True])
def test_download_foreign_file_is_not_overwritten(download: Download, ready: bool):
    foreign = download.dir / "stage_2_train_labels.csv"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    if ready:
        for name, content in FILES.items():
            path = download.dir / ".download/ready" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    result = download.run()
    assert result.returncode == 2
    assert "already has stage_2_train_labels.csv" in result.stdout
    assert foreign.read_text() == "mine"
    assert not (download.dir / "stage_2_train_images").exists()
    assert download.n_calls == 0


def test_download_without_client_says_what_to_do(download: Download):
    (download.bin / "kaggle").unlink()
    if (ROOT / ".venv/bin/kaggle").exists() or shutil.which("kaggle", path="/usr/bin:/bin"):
        pytest.skip("Kaggle's client is installed here")
    result = download.run()
    assert result.returncode == 1
    assert "command kaggle, was not found" in result.stdout
    assert "pip install kaggle" in result.stdout


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("Authentication required to call the Kaggle API.", "step 2"),
        ("OSError: Could not find kaggle.json. Make sure it's located in ~/.kaggle", "step 2"),
        ("401 Client Error: Unauthorized for url: https://api.kaggle.com", "step 2"),
        ("403 Client Error: Forbidden for url: https://api.kaggle.com", "step 3"),
        ("Max retries exceeded: failed to resolve 'api.kaggle.com'", "its message is above"),
    ],
)
def test_download_refused_says_what_to_do(download: Download, message: str, step: str):
    result = download.run(FAKE_MESSAGE=message)
    assert result.returncode == 1
    assert step in result.stdout
    for hint in ("~/.kaggle/kaggle.json", "KAGGLE_USERNAME", f"{COMPETITION}/rules"):
        assert hint in result.stdout


def test_download_without_space_does_not_begin(download: Download):
    result = download.run(FAKE_FREE_KB="7900000")
    assert result.returncode == 1
    assert "has 7 GB free" in result.stdout
    assert download.n_calls == 0


def test_download_extra_argument_is_refused(download: Download):
    assert download.run("one", "two").returncode == 2


class Checkout:
    """A folder with create_env.sh and a Python that only pretends to install."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the checkout"
        self.bin = folder / "bin"
        self.log = folder / "python.log"
        (self.root / "tests").mkdir(parents=True)
        for name in ("create_env.sh", *REQUIREMENTS, "tests/requirements.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("python3.11", "python3.12", "python3.13", "python3", "python"):
            write_command(self.bin / name, FAKE_PYTHON)
        write_command(self.bin / "df", FAKE_DF)
        self.env = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder),
            "FAKE_LOG": str(self.log),
        }

    def add_conda(self) -> None:
        base = self.bin.parent / "conda base"
        write_command(self.bin / "conda", FAKE_CONDA)
        write_command(base / "python3", FAKE_PYTHON)
        hook = 'conda() { [[ $1 == activate ]] && VIRTUAL_ENV=$2 && echo "activated $2"; }\n'
        write_command(base / "etc/profile.d/conda.sh", hook)
        self.env["FAKE_CONDA_BASE"] = str(base)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run("bash", self.root / "create_env.sh", *args, env={**self.env, **env})

    def run_shell(self, shell: str, text: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run shell code in which $S is create_env.sh's path."""
        env = {**self.env, "S": str(self.root / "create_env.sh"), **env}
        return run(shell, "-c", text, env=env, cwd=Path("/"))

    @property
    def calls(self) -> list[str]:
        """The calls of pip, venv and conda so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line != "--version"]


@pytest.fixture
def checkout(folder: Path) -> Checkout:
    return Checkout(folder)


def test_create_env_installs_the_pins_into_a_venv(checkout: Checkout):
    result = checkout.run()
    assert result.returncode == 0, result.stdout
    assert checkout.calls == [
        f"-m venv --clear {checkout.root}/.venv",
        f"-m pip install --requirement {checkout.root}/requirements.txt",
    ]
    assert f'activate it with: source "{checkout.root}/.venv/bin/activate"' in result.stdout


def test_create_env_second_run_does_nothing(checkout: Checkout):
    checkout.run()
    n_calls = len(checkout.calls)
    result = checkout.run()
    assert result.returncode == 0
    assert "is ready" in result.stdout
    assert len(checkout.calls) == n_calls


def test_create_env_tests_installs_more_once(checkout: Checkout):
    checkout.run()
    assert checkout.run("--tests").returncode == 0
    expected = f"-m pip install --requirement {checkout.root}/tests/requirements.txt"
    assert checkout.calls[2:] == [expected]
    checkout.run("--tests")
    checkout.run()
    assert checkout.calls[2:] == [expected]


@pytest.mark.parametrize(
    ("args", "changed"), [((), REQUIREMENTS[0]), *((("--tests",), name) for name in REQUIREMENTS)]
)
def test_create_env_changed_requirements_are_installed(
    checkout: Checkout, args: tuple[str, ...], changed: str
):
    checkout.run(*args)
    with (checkout.root / changed).open("a") as file:
        file.write("munch==4.0.0\n")
    checkout.run(*args)
    assert [line.split()[1] for line in checkout.calls] == ["venv", "pip", "pip"]


def test_create_env_failing_pip_is_one_sentence_and_continued(checkout: Checkout):
    result = checkout.run(FAKE_PIP_STATUS="1", FAKE_FREE_KB="5900000")
    assert result.returncode == 1
    assert "pip could not install requirements.txt" in result.stdout.splitlines()[-1]
    assert "5 GB more are free" in result.stdout.splitlines()[-1]
    assert checkout.run().returncode == 0
    assert [line.split()[1] for line in checkout.calls] == ["venv", "pip", "pip"]


def test_create_env_moved_folder_is_made_again(checkout: Checkout):
    checkout.run()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved here"))
    assert checkout.run().returncode == 0
    assert checkout.calls[2] == f"-m venv --clear {checkout.root}/.venv"


def test_create_env_without_python_is_one_sentence(checkout: Checkout):
    result = checkout.run(FAKE_PYTHON_TOO_OLD="1")
    assert result.returncode == 1
    assert result.stdout.startswith("create_env.sh: no Python 3.11 or newer")
    assert len(result.stdout.splitlines()) == 1


def test_create_env_python_override_sets_nothing_up(checkout: Checkout):
    result = checkout.run("--tests", PYTHON=sys.executable)
    assert result.returncode == 0
    assert f"PYTHON={sys.executable} is used as it is" in result.stdout
    assert not (checkout.root / ".venv").exists()
    assert checkout.calls == []


def test_create_env_broken_python_override_is_refused(checkout: Checkout):
    result = checkout.run(PYTHON="/nowhere/python")
    assert result.returncode == 1
    assert "PYTHON=/nowhere/python does not run" in result.stdout


def test_create_env_unknown_argument_is_refused(checkout: Checkout):
    assert checkout.run("--test").returncode == 2
    assert checkout.calls == []


def test_create_env_prefers_conda(checkout: Checkout):
    checkout.add_conda()
    result = checkout.run()
    assert result.returncode == 0, result.stdout
    prefix = f"{checkout.root}/.venv"
    assert checkout.calls == [
        f"conda create --yes --quiet --prefix {prefix} --override-channels --channel conda-forge "
        "python=3.11 pip",
        f"-m pip install --requirement {checkout.root}/requirements.txt",
    ]
    assert f'conda activate "{prefix}"' in result.stdout


def test_create_env_sourced_activates_conda(checkout: Checkout):
    checkout.add_conda()
    result = checkout.run_shell("bash", 'source "$S"')
    assert result.returncode == 0, result.stdout
    assert f"activated {checkout.root}/.venv" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_create_env_sourced_activates(checkout: Checkout, shell: str):
    if shutil.which(shell, path=checkout.env["PATH"]) is None:
        pytest.skip(f"{shell} is not installed")
    text = 'cd "${S%/*}" && set -u && source ./create_env.sh && echo "active: $VIRTUAL_ENV"'
    result = checkout.run_shell(shell, text)
    assert result.returncode == 0, result.stdout
    assert f"active: {checkout.root}/.venv" in result.stdout


@pytest.mark.parametrize("pip_status", ["0", "1"])
def test_create_env_sourced_leaves_the_shell_as_it_was(checkout: Checkout, pip_status: str):
    # The fake activation sets VIRTUAL_ENV alone, so nothing else may appear.
    text = """
        state() { set +o; shopt; trap; declare -F; compgen -v | grep -vx VIRTUAL_ENV; }
        before=$(state) after= status=
        before=$(state)
        source "$S"
        status=$?
        after=$(state)
        diff <(echo "$before") <(echo "$after") && echo "unchanged, status $status"
    """
    result = checkout.run_shell("bash", text, FAKE_PIP_STATUS=pip_status)
    assert f"unchanged, status {pip_status}" in result.stdout, result.stdout


# What `python -m NAME` does in these tests: say its name, fail if it is named in FAKE_FAILING.
FAKE_CHECKS = """#!/usr/bin/env bash
if [[ $1 != -m ]]; then exit 0; fi
shift
echo "called in $PWD: $*"
if [[ $1 == "${FAKE_FAILING:-}" ]]; then exit 5; fi
"""


@pytest.mark.parametrize("entry", ["scripts/run_tests.sh", ".ci/run"])
@pytest.mark.parametrize(("failing", "status"), [("", 0), ("ruff", 5), ("mypy", 5), ("pytest", 5)])
def test_run_tests_runs_all_and_ends_with_pytest(
    checkout: Checkout, entry: str, failing: str, status: int
):
    for name in ("scripts/run_tests.sh", "scripts/soak.sh", ".ci/run"):
        (checkout.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout.root / name)
    python = checkout.bin / "checks python"
    write_command(python, FAKE_CHECKS)
    env = {**checkout.env, "PYTHON": str(python), "FAKE_FAILING": failing}
    result = run("bash", checkout.root / entry, "-k", "one two", env=env, cwd=Path("/"))
    prefix = f"called in {checkout.root}: "
    called = [line for line in result.stdout.splitlines() if line.startswith(prefix)]
    *checks, tests = (line.removeprefix(prefix) for line in called)
    assert checks == ["ruff check .", "ruff format --check .", "mypy"]
    assert tests.startswith("pytest ") and tests.endswith(" -k one two")
    assert result.stdout.splitlines()[-1] == called[-1]
    assert result.returncode == status
