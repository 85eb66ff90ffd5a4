"""`rlrun runs`: filters, orders, records."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from rl_runner.report import listing
from rl_runner.types import UserError
from tests.runs import INTERRUPTED, a_run

HEAD = "rl_runner.networks.heads.Dueling"


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    a_run(tmp_path / "a", {100: 5.0, 300: 3.0}, {"tags": ["baseline", "x"], "network.head._target_": HEAD})
    a_run(tmp_path / "b", {100: 9.0}, {"optimizer.lr": 1e-4, "seed": 1, "network.head._target_": HEAD}, log=INTERRUPTED)
    a_run(
        tmp_path / "c",
        {},
        {"agent.name": "ppo", "env.name": "lunarlander", "env.id": "LunarLander-v3", "network.head._target_": HEAD},
    )
    for age, name in enumerate("cba"):
        for file in ("metrics.csv", "train.log", "config.yaml"):
            os.utime(tmp_path / name / file, (1000 + age, 1000 + age))
    return str(tmp_path)


def names(outputs: str, where: tuple[str, ...] = (), states: tuple[str, ...] = (), sort: str = "run") -> str:
    return "".join(entry.run.path.name for entry in listing.listed([outputs], where, states, sort))


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["agent.name=dqn"], "ab"),
        (["agent=dqn"], "ab"),
        (["env=lunarlander"], "c"),
        (["network.head._target_=Dueling"], "abc"),
        ([f"network.head._target_={HEAD}"], "abc"),
        (["network.head._target_=ling"], ""),
        (["network.head._target_=*"], "abc"),
        (["optimizer.lr=1e-4"], "b"),
        (["optimizer.lr=0.001"], "ac"),
        (["tags=baseline"], "a"),
        (["env.id=*Pole*"], "ab"),
        (["agent.double=false", "seed=1"], "b"),
        (["stop.return=null"], "abc"),
        (["seed=5"], ""),
        (["last>=3"], "ab"),
        (["last>3"], "b"),
        (["best=5"], "a"),
        (["steps<=1_00"], "bc"),
        (["last<100"], "ab"),  # c was never evaluated
        (["optimizer.lr<0.001"], "b"),
        (["agent.name>1"], ""),
    ],
)
def test_where(outputs: str, where: list[str], found: str) -> None:
    assert names(outputs, tuple(where)) == found


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("run", "abc"),
        ("-run", "cba"),
        ("age", "abc"),
        ("-age", "cba"),
        ("last", "abc"),  # none comes last
        ("-last", "bac"),
        ("steps", "cba"),
        ("optimizer.lr", "bac"),
        ("agent.name", "abc"),
    ],
)
def test_orders(outputs: str, sort: str, found: str) -> None:
    assert names(outputs, sort=sort) == found


def test_states(outputs: str) -> None:
    assert names(outputs, states=("finished",)) == "ac"
    assert names(outputs, states=("interrupted", "killed")) == "b"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"where": ("lr=1",)}, "--where: no run has a key 'lr'; did you mean optimizer.lr?"),
        (
            {"where": ("stop=1",)},
            "--where: no run has a key 'stop'; the keys in it are stop.return, stop.window, stop.eval_return",
        ),
        ({"where": ("seed",)}, "--where: must be KEY=VALUE, or <, <=, > or >= in place of =, got 'seed'"),
        ({"where": ("last>high",)}, "--where: last>high: 'high' is no number"),
        (
            {"states": ("done",)},
            "--state: must be one of running, finished, pruned, interrupted, failed, killed, got 'done'",
        ),
        (
            {"sort": "step"},
            "--sort: must be a key or one of age, run, state, steps, last, best, disk; "
            "no run has a key 'step'; did you mean steps?",
        ),
    ],
)
def test_mistakes_are_named(outputs: str, words: dict[str, tuple[str, ...]], says: str) -> None:
    with pytest.raises(UserError) as e:
        names(outputs, **words)  # type: ignore[arg-type]
    assert str(e.value) == says


def test_a_run_that_cannot_be_read_is_named(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(outputs) / "b" / "config.yaml").write_bytes(b"\xff\xfe")
    assert names(outputs) == "ac"
    assert capsys.readouterr().err.startswith(f"rlrun: left out: {outputs}/b/config.yaml cannot be read: ")


def test_a_record(outputs: str) -> None:
    first = listing.record(listing.listed([outputs], ["seed=0", "agent.name=dqn"], [], "run")[0])
    assert {name: first[name] for name in ("state", "steps", "last_return", "best_return", "best_step", "tags")} == {
        "state": "finished",
        "steps": 300,
        "last_return": 3,
        "best_return": 5,
        "best_step": 100,
        "tags": ["baseline", "x"],
    }
    every = [listing.record(entry) for entry in listing.listed([outputs], [], [], "run")]
    assert [record["differences"] for record in every[:2]] == [{"optimizer.lr": "0.001"}, {"optimizer.lr": "0.0001"}]
    assert every[2]["last_return"] is None


def test_of_equal_evaluations_the_last_is_the_best_one(tmp_path: Path) -> None:
    a_run(tmp_path / "r", {100: 5.0, 200: 5.0, 300: 3.0})
    assert listing.record(listing.listed([str(tmp_path)], [], [], "run")[0])["best_step"] == 200


def test_a_best_agent_from_before_a_resume_has_its_own_step(tmp_path: Path) -> None:
    a_run(tmp_path / "r", {100: 10.0, 200: 20.0})
    kept = tmp_path / "r/checkpoints/best_000000300"
    kept.mkdir(parents=True)
    (kept / "manifest.json").write_text('{"about": {"return": {"mean": 50.0}}}')
    record = listing.record(listing.listed([str(tmp_path)], [], [], "run")[0])
    assert (record["best_return"], record["best_step"]) == (50.0, 300)


def test_the_table(outputs: str) -> None:
    text = io.StringIO()
    listing.show(Console(file=text, width=200), listing.listed([outputs], [], [], "run"))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if "│" in line]
    assert rows[0][1:6] == ["finished", "300", "3.00", "5.00", "optimizer.lr=0.001"]
    assert rows[2][1:5] == ["finished", "0", "-", "-"]
    assert "3 runs, " in text.getvalue()


def test_ages_in_words() -> None:
    assert [listing.age(s) for s in (-1, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
