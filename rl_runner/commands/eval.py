"""`rlrun eval`: play episodes with a saved agent and report their returns."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.evaluation import Evaluation, evaluate
from rl_runner.run.directory import RunDirectory
from rl_runner.run.files import write_whole
from rl_runner.run.terminal import counted, make_console
from rl_runner.screen.playback import playback
from rl_runner.screen.video import VideoFile
from rl_runner.types import Agent, Episode, Evaluate, State, UserError

COLUMNS = ("mean", "95 % CI", "std", "median", "min", "max")


@dataclass
class EvalJob:
    """An evaluation, built.

    Attributes:
        run: the run that the agent is from.
        checkpoint: the agent.
        step: of training, at which it was saved.
        total_steps: how many steps that training takes.
        agent: the saved agent.
        mode: how it acts.
        envs: fresh environments.
        episodes: how many to play.
        seed: of the environments.
        protocol: what a reader of the score must know.
        name: suffix of file names: the settings that are not the usual ones.
        viewer: an environment that draws; None: no videos.
        videos: how many of the episodes to write as videos.
    """

    run: RunDirectory
    checkpoint: Path
    step: int
    total_steps: int
    agent: Agent
    mode: Evaluate
    envs: EpisodicVectorEnv
    episodes: int
    seed: int
    protocol: State
    name: str
    viewer: Backend | None
    videos: int

    @property
    def file(self) -> str:
        """The common prefix of the names of its files."""
        return f"{self.checkpoint.name}_seed{self.seed}{self.name}"


class Score(NamedTuple):
    """What an evaluation gave."""

    evaluation: Evaluation
    result: State  # what its JSON file holds


def score(job: EvalJob) -> Score:
    """Play the episodes and show a table of their returns and lengths."""
    # Back in this directory at the end, as an environment may change it.
    with contextlib.chdir("."), contextlib.closing(job.envs):
        evaluation = evaluate(job.agent, job.envs, job.episodes, job.mode)
        deterministic = job.envs.repeats(min(evaluation.episodes, key=lambda episode: episode.length))
    result = {
        **evaluation.summary(),
        "seed": job.seed,
        "checkpoint": str(job.checkpoint),
        "step": job.step,
        "environment": job.envs.backend.name,
        "protocol": job.protocol,
        "deterministic": deterministic,
        "per_episode": evaluation.rows(),
    }
    _show(job, result)
    return Score(evaluation, result)


def write(job: EvalJob, score: Score) -> None:
    """Write a score as a JSON file into the run's directory, and the videos that were asked for.

    Raises:
        UserError: a file cannot be written. The score was shown, but the exit code is 2: who asks for a file and gets
            exit code 0 has it.
    """
    try:
        path = save(job, score)
    except OSError as e:
        raise UserError(f"{e.filename}: cannot be written: {e.strerror}; the score is the one shown above") from e
    print(f"written to {path}")
    if job.viewer:
        for i, episode in enumerate(score.evaluation.episodes[: job.videos]):
            _write_video(job, job.viewer, i, episode)
        job.viewer.close()


def save(job: EvalJob, score: Score) -> Path:
    """Write a score as a JSON file into the run's directory; return the file.

    Raises:
        OSError: it cannot be written.
    """
    path = job.run.evaluations / f"{job.file}.json"
    try:
        job.run.evaluations.mkdir(exist_ok=True)
        write_whole(path, json.dumps(score.result, indent=2) + "\n")
    except OSError as e:
        e.filename = str(path)  # and not the temporary one
        raise
    return path


def show_all(labels: Sequence[str], scores: Sequence[Score]) -> None:
    """Show the returns of several evaluations as one table."""
    table = Table("run", "step", *COLUMNS, "episodes")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, (_, result) in zip(labels, scores, strict=True):
        table.add_row(
            Text(label), f"{result['step']:,}", *_cells(result["return"], result["episodes"]), str(result["episodes"])
        )
    # Wide enough that no number is cut short.
    print()
    make_console(width=1000).print(table)


def _show(job: EvalJob, result: State) -> None:
    console = make_console()
    protocol = ", ".join(f"{k} {v}" for k, v in job.protocol.items())
    console.print(
        f"{job.envs.backend.name}, {job.checkpoint} (step {result['step']:,} of {job.total_steps:,})", markup=False
    )
    console.print(f"{counted(result['episodes'], 'episode')}, seed {job.seed}, raw rewards; {protocol}", markup=False)
    table = Table("", "return", "length")  # narrow enough for every terminal
    for column in table.columns[1:]:
        column.justify = "right"
    for cells in zip(
        COLUMNS, *(_cells(result[name], result["episodes"]) for name in ("return", "length")), strict=True
    ):
        table.add_row(*cells)
    console.print(table)
    for note in job.envs.backend.notes:
        console.print(f"{job.envs.backend.name}: {note}", markup=False)
    if not result["deterministic"]:
        console.print(
            f"{job.envs.backend.name} is not deterministic, or has a state of its own that is not saved: an episode "
            f"played again, with its seed and its actions, was another one. Scores may depend on num_envs.",
            markup=False,
        )


def _cells(s: dict[str, Any], episodes: int) -> list[str]:
    """Return the statistics in the order of COLUMNS. One episode says nothing of the spread."""
    low, high = s["ci95"]
    spread = [f"{low:.2f} to {high:.2f}", f"{s['std']:.2f}"] if episodes > 1 else ["-", "-"]
    return [f"{s['mean']:.2f}", *spread, *(f"{s[name]:.2f}" for name in ("median", "min", "max"))]


def _write_video(job: EvalJob, viewer: Backend, i: int, episode: Episode) -> None:
    """Play an episode again and write what is seen, under the return that it had this time."""
    total, length, ended = 0.0, -1, False
    with VideoFile(job.run.videos / f"{job.file}_{i}.mp4", viewer.fps) as video:
        for shown in playback(viewer, episode.seed, episode.actions):
            for frame in shown.frames:
                video.write(frame)
            total, length, ended = total + shown.reward, length + 1, shown.ended
        video.path = job.run.videos / f"{job.file}_{i}_return_{total:g}{'' if ended else '_cut'}.mp4"
    if (total, length, ended) == (episode.total_reward, episode.length, True):
        print(f"written to {video.path}")
        return
    end = "" if ended else " and no end"
    print(
        f"written to {video.path}: another episode than the one that was counted, with return {total:g} in {length} "
        f"steps{end}, not {episode.total_reward:g} in {episode.length}: {viewer.name} is not deterministic"
    )
