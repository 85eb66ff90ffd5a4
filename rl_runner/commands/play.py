"""`rlrun play`: watch an agent, in a window or as a video file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.screen.playback import drawn
from rl_runner.screen.video import VideoFile
from rl_runner.screen.window import Window
from rl_runner.types import Carry, Evaluate, Policy


@dataclass
class PlayJob:
    """Something to watch, built.

    Attributes:
        envs: one environment that draws.
        policy: chooses its actions.
        mode: how it acts.
        episodes: how many to play.
        max_steps: stop after this many steps, wherever the episode stands; None: play every episode to its end.
        video: file to write instead of opening a window.
        title: what is seen.
    """

    envs: EpisodicVectorEnv
    policy: Policy
    mode: Evaluate
    episodes: int
    max_steps: int | None
    video: Path | None
    title: str


def run(job: PlayJob) -> None:
    """Play until the episodes or the steps are over or the window is closed; print each episode's return."""
    fps = job.envs.backend.fps
    with VideoFile(job.video, fps) if job.video else Window(job.title, fps) as screen:
        print(job.title)
        obs, carry, played, steps = job.envs.reset(), None, 0, 0
        begun, total = 0, 0.0  # the running episode: the step of its start, and its return so far
        _show(job, screen)
        while played < job.episodes and steps != job.max_steps and not getattr(screen, "closed", False):
            action, carry = job.policy.act(obs, carry, job.mode, job.envs.action_mask)
            job.envs.send(action)
            tr = job.envs.recv()
            obs, steps, total = tr.next_obs, steps + 1, total + float(tr.reward[0])
            _show(job, screen)
            for episode in job.envs.finished:
                played += 1
                print(f"episode {played}: return {episode.total_reward:g}, {episode.length} steps")
                begun, total = steps, 0.0
            if tr.ended.any() and played < job.episodes:
                obs, carry = job.envs.reset(tr.ended), Carry.begin(carry, tr.ended)
                _show(job, screen)
    if steps > begun and played < job.episodes:
        print(f"episode {played + 1}: stopped after {steps - begun} steps, return {total:g} so far")
    job.envs.close()
    if job.video:
        print(f"written to {job.video}")


def _show(job: PlayJob, screen: VideoFile | Window) -> None:
    for frame in drawn(job.envs.backend):
        screen.write(frame)
