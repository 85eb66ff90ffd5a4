"""`rlrun compare` and `rlrun runs` as command lines: help, mistakes, files, the question before runs are moved."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rl_runner.cli.plain import PLAIN
from tests.commandline import refused, rlrun
from tests.runs import a_run

BETWEEN = "must be a whole number from 100 to 1,000,000"


@pytest.fixture
def outputs(workdir: Path) -> Path:
    for seed in range(3):
        a_run(workdir / f"outputs/cartpole/dqn/{seed}", {100: 1.0, 300: 2.0 + seed}, {"seed": seed})
    return Path("outputs")


@pytest.mark.parametrize("name", list(PLAIN))
def test_help_names_every_option(name: str) -> None:
    out = rlrun(name, "--help").out
    assert all(f"\n  {option.name}" in out for option in PLAIN[name].options)
    assert out == rlrun("help", name).out
    assert f"  rlrun {name}" in rlrun("--help").out
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare"], "compare: name runs"),
        (
            ["compare", "outputs", "--treshold", "3"],
            "compare: there is no option '--treshold'; did you mean --threshold?",
        ),
        (["compare", "outputs", "--threshold", "high"], "compare: --threshold: must be a number, got 'high'"),
        (["compare", "outputs", "--resamples", "0"], f"--resamples: {BETWEEN}, got '0'"),
        (["compare", "outputs", "--resamples", "100.5"], f"--resamples: {BETWEEN}, got '100.5'"),
        (
            ["compare", "outputs", "--threshold", "1,5"],
            "must be a number, such as 1,500 or 1.5, got '1,5'",
        ),
        (["compare", "outputs", "--threshold", "nan"], "--threshold: must be a finite number, got 'nan'"),
        (["compare", "outputs", "--plot", "a.jpg"], "--plot: must end in .png, .svg, .pdf, got 'a.jpg'"),
        (["compare", "outputs", "--csv", "outputs"], "--csv: outputs: Is a directory"),
        (["compare", "nowhere"], "nowhere: no such directory"),
        (["compare", "outputs", "--by", "lr"], "--by: no run has a key 'lr'; did you mean optimizer.lr?"),
        (["runs", "nowhere"], "nowhere: no such directory"),
        (["runs", "rm"], "runs rm: name the runs"),
        (["comare", "outputs"], "did you mean compare?"),
        (["ls"], "unknown verb 'ls'; did you mean runs?"),
    ],
)
def test_mistakes_are_named_in_one_line(words: list[str], says: str, outputs: Path) -> None:
    if "--csv" in words:  # the table was shown before
        done = rlrun(*words)
        assert (done.code, done.err) == (2, f"rlrun: {says}\n")
    else:
        assert says in refused(*words)


def test_compare_writes_what_is_asked_for(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    done = rlrun("compare", "outputs", "--csv", "new/a.csv", "--html", "a.html", "--plot", "a.svg")
    assert done.code == 0, done.err
    assert done.out.endswith("written to new/a.csv\nwritten to a.svg\nwritten to a.html\n")
    assert ": see new/a.csv or a.html\n" in done.out
    assert Path("new/a.csv").read_text().count("\n") == 2
    assert Path("a.svg").read_text().startswith("<?xml")


def test_without_matplotlib_the_extra_is_named(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rl_runner.report.pictures", raising=False)
    monkeypatch.delattr("rl_runner.report.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = rlrun("compare", "outputs", "--plot", "a.png")
    assert (done.code, done.err) == (2, "rlrun: --plot: needs matplotlib: pip install 'rlrun[plot]'\n")


def test_runs_as_json(outputs: Path) -> None:
    done = rlrun("runs", "--json", "--where", "seed=2")
    (run,) = json.loads(done.out)
    assert (run["run"], run["last_return"]) == ("outputs/cartpole/dqn/2", 4)


def test_runs_are_moved_after_a_yes(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path("outputs/cartpole/dqn/0")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert rlrun("runs", "rm", str(run)).err.endswith("nobody can be asked here; add --yes\n")
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert rlrun("runs", "rm", str(run)).out.endswith("nothing was moved\n")
    assert run.exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    done = rlrun("runs", "rm", str(run))
    assert done.code == 0
    assert "move 1 run to the bin? [y/N]" in done.out
    assert not run.exists()
    assert Path("outputs/.bin/cartpole/dqn/0/config.yaml").is_file()
    assert rlrun("runs", "rm", "outputs/cartpole/dqn/1", "--yes").code == 0
    assert "1 run," in rlrun("runs").out


def test_neither_verb_imports_torch_or_hydra(outputs: Path) -> None:
    code = (
        "from rl_runner.cli.main import run; import sys\n"
        "run(['compare', 'outputs', '--html', 'a.html']); run(['runs'])\n"
        "print({'torch', 'hydra', 'matplotlib', 'scipy.stats', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
