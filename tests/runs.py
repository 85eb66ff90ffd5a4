"""Runs as `rlrun train` leaves them, without training."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rl_runner.run import notes

CONFIG: dict[str, Any] = {
    "seed": 0,
    "device": "auto",
    "total_steps": 300,
    "tags": [],
    "log": {"every_steps": 100},
    "eval": {"every_steps": 100, "episodes": 10, "epsilon": 0.0, "num_envs": 5},
    "stop": {"return": None, "window": 100, "eval_return": None},
    "agent": {"_target_": "rl_runner.agents.dqn.DQN", "name": "dqn", "double": False},
    "optimizer": {"lr": 0.001, "lr_steps": 300},
    "env": {"name": "cartpole", "id": "CartPole-v1", "sticky": 0.0},
}
PONG = {"env.name": "pong", "env.id": None, "env.game": "pong", "env.frame_skip": 4}
FINISHED, INTERRUPTED = (
    "evaluate it:  rlrun eval x\nwatch it:     rlrun play x\n",
    "stopped and saved; resume with: x\n",
)


def a_run(
    path: Path, evaluations: Mapping[int, float], changes: Mapping[str, Any] | None = None, log: str = FINISHED
) -> Path:
    """Make a run's directory; a step takes 0.6 seconds.

    Args:
        path: the directory.
        evaluations: the mean return by step.
        changes: to the configuration above, by dotted keys.
        log: what it said at last.
    """
    config = json.loads(json.dumps(CONFIG))
    for key, value in (changes or {}).items():
        *above, leaf = key.split(".")
        node = config
        for name in above:
            node = node.setdefault(name, {})
        node[leaf] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    rows = [f"{s},eval/return_mean,{v}\n{s},time/seconds,{0.6 * s}\n" for s, v in evaluations.items()]
    (path / "metrics.csv").write_text("step,name,value\n" + "".join(rows))
    (path / "train.log").write_text(f"said before\n{log}")
    return path


def an_evaluation(run: Path, checkpoint: str, mean: float, step: int = 300, **more: Any) -> Path:
    """Add what `rlrun eval` writes; return the file."""
    (run / "eval").mkdir(exist_ok=True)
    statistics = {"mean": mean, "std": 0.0, "min": mean, "max": mean, "ci95": [mean, mean]}
    facts = {"step": step, "episodes": 100, "seed": 0, "protocol": {"eval_epsilon": 0.0}, "return": statistics}
    result = {**facts, "checkpoint": f"/somewhere/{checkpoint}", **more}
    file = run / "eval" / f"{checkpoint}_{len(list((run / 'eval').iterdir()))}.json"
    file.write_text(json.dumps(result))
    return file


def a_job(
    directory: Path, overrides: str, evaluations: Mapping[int, float], end: type[BaseException] | None = None
) -> Path:
    """Make what a job leaves; `end` is what it ended by."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"{step},eval/return_mean,{value}\n" for step, value in evaluations.items()]
    with contextlib.suppress(*[end] if end else []), notes.noted(directory, overrides.split()):
        (directory / "metrics.csv").write_text("step,name,value\n" + "".join(lines))
        if end:
            raise end
    return directory
