"""`rlrun eval`: play episodes with a saved agent and count."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rl_runner import checkpoint
from rl_runner.actor import Actor
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.evaluate import Evaluation, evaluate
from rl_runner.runs import RunDirectory
from rl_runner.terminal import make_console
from rl_runner.types import State
from rl_runner.video import VideoFile, playback


@dataclass
class EvalJob:
    """An evaluation, built.

    Attributes:
        run: the run that the agent is from.
        checkpoint: the agent.
        actor: it, choosing actions.
        envs: fresh environments.
        episodes: how many to play.
        seed: of the environments.
        protocol: what a reader of the score must know.
        name: what of it is not as the run has it, for the name of the file.
        viewer: makes an environment that draws; None: no videos.
        videos: how many of the episodes to write as videos.
    """

    run: RunDirectory
    checkpoint: Path
    actor: Actor
    envs: EpisodicVectorEnv
    episodes: int
    seed: int
    protocol: State
    name: str
    viewer: Callable[[], Backend] | None
    videos: int


def run(job: EvalJob) -> State:
    """Play, show a table, write a JSON file beside the run (and videos); give what the file holds."""
    evaluation = evaluate(job.actor, job.envs, job.episodes)
    job.envs.close()
    result = {
        **evaluation.summary(),
        "seed": job.seed,
        "checkpoint": str(job.checkpoint),
        "step": checkpoint.about(job.checkpoint)["steps"],
        "environment": job.envs.backend.name,
        "protocol": job.protocol,
    }
    name = f"{job.checkpoint.name}_seed{job.seed}{job.name}"
    job.run.evaluations.mkdir(exist_ok=True)
    path = job.run.evaluations / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(job, result, path)
    if job.viewer:
        _write_videos(job, job.viewer, evaluation, name)
    return result


def _show(job: EvalJob, result: State, path: Path) -> None:
    console = make_console()
    protocol = ", ".join(f"{k} {v}" for k, v in job.protocol.items())
    console.print(f"{job.envs.backend.name}, {job.checkpoint} (step {result['step']:,})", markup=False)
    console.print(f"{result['episodes']} episodes, seed {job.seed}, raw rewards; {protocol}", markup=False)
    table = Table()
    columns = ("mean", "95 % CI", "std", "median", "min", "max")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for row in ("return", "length"):
        table.add_row(row, *_cells(result[row]))
    console.print(table)
    console.print(f"written to {path}", markup=False)


def _cells(s: dict[str, Any]) -> list[str]:
    low, high = s["ci95"]
    rest = [f"{s[name]:.2f}" for name in ("std", "median", "min", "max")]
    return [f"{s['mean']:.2f}", f"{low:.2f} to {high:.2f}", *rest]


def _write_videos(job: EvalJob, viewer: Callable[[], Backend], evaluation: Evaluation, name: str) -> None:
    backend = viewer()
    for i, episode in enumerate(evaluation.episodes[: job.videos]):
        path = job.run.videos / f"{name}_{i}_return_{episode.total_reward:g}.mp4"
        with VideoFile(path, backend.fps) as video:
            for frame in playback(backend, episode.seed, episode.actions):
                video.write(frame)
        print(f"written to {path}")
    backend.close()
