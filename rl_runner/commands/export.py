"""`rlrun export`: an agent as a directory that other programs and model hubs read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from rl_runner.commands import network_files
from rl_runner.envs.spaces import first_action
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.evaluation import evaluate
from rl_runner.extras import missing
from rl_runner.report import curves, evaluations
from rl_runner.report.card import Card, Tensor
from rl_runner.run import provenance
from rl_runner.run.checkpoint import about
from rl_runner.run.directory import RunDirectory
from rl_runner.run.files import read_json
from rl_runner.screen.playback import playback
from rl_runner.screen.video import VideoFile
from rl_runner.types import Array, Carry, Evaluate, HasOutputs, Policy, State, UserError

FORMAT = "rlrun export 1"  # the first entry of results.json
ONNX, WEIGHTS, CONFIG, RESULTS = "model.onnx", "model.safetensors", "config.json", "results.json"
CARD, CURVE, VIDEO = "README.md", "curve.png", "replay.mp4"
NOT_WRITTEN = ("logger", "init_from", "resume")  # keys of the configuration: addresses and directories
NAMES = (ONNX, WEIGHTS, CONFIG, RESULTS, CURVE, VIDEO, CARD)


@dataclass
class ExportJob:
    """An export, built.

    Attributes:
        run: the run that the agent is from.
        checkpoint: the agent.
        step: of training, at which it was saved.
        agent: the saved agent, on the CPU.
        config: of its run.
        envs: fresh environments.
        observations: how many are compared.
        rng: of the actions that lead to them.
        viewer: one environment that draws; None: no new video.
        out: the directory to write.
    """

    run: RunDirectory
    checkpoint: Path
    step: int
    agent: HasOutputs
    config: State
    envs: EpisodicVectorEnv
    observations: int
    rng: np.random.Generator
    viewer: Backend | None
    out: Path


def run(job: ExportJob) -> None:
    """Write the directory, check the network, say what was written and how to push it.

    Raises:
        UserError: a file cannot be written, or the written network computes something else than the agent.
    """
    with contextlib.closing(job.envs):
        require_own(job.out)
        obs = observed(job.agent, job.envs, job.observations, job.rng)
    with _replacing(job.out) as directory:
        network_files.write_onnx(job.agent, obs, directory / ONNX)
        network_files.write_weights(job.agent.acting, directory / WEIGHTS)
        _write_json(directory / CONFIG, {k: v for k, v in job.config.items() if k not in NOT_WRITTEN})
        results = results_of(job)
        _write_json(directory / RESULTS, results)
        said = [*_draw(job, directory / CURVE), *_film(job, directory / VIDEO)]
        card = _card(job, obs, results, directory)
        (directory / CARD).write_text(card.text(), encoding="utf-8")
        checked = network_files.check_onnx(directory / ONNX, job.agent, obs)
        there = [directory / name for name in NAMES if (directory / name).exists()]
        written = [f"{path.name} ({path.stat().st_size:,} bytes)" for path in there]
    print(f"{job.envs.backend.name}, {job.checkpoint} (step {job.step:,})")
    print(f"written to {job.out}: {', '.join(written)}")
    for line in said:
        print(line)
    if job.config["precision"] == "bf16":
        print("trained in bfloat16, written and compared in float32; evaluations compute in bfloat16")
    if results["score_of"] != "eval":
        print(f"no score on fresh seeds: {shlex.join(['rlrun', 'eval', str(job.checkpoint)])}, then export again")
    print(f"checked: {checked}" if checked else f"not checked: {missing('onnxruntime', 'export')}")
    print(f"push it:  {shlex.join(['hf', 'upload', f'YOUR_NAME/{card.name}', str(job.out), '.'])}")


def require_own(out: Path) -> None:
    """Check that nothing but an earlier export would be replaced; hidden files, such as those of git, stay.

    Raises:
        UserError: something else is there.
    """
    try:
        there = sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) if out.exists() else []
        if not there:
            return
        found = read_json(out / RESULTS) if RESULTS in there else None
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return
    except ValueError:
        pass
    except OSError as e:
        raise UserError(f"out: {out} cannot be written: {e.strerror}") from e
    raise UserError(f"out: {out} holds {there[0]}, which is of no export; choose another directory")


def observed(policy: Policy, envs: EpisodicVectorEnv, count: int, rng: np.random.Generator) -> Array:
    """Return observations (count, *O) of environments, reached by a policy with half of its actions random."""
    obs, carry, mode = envs.reset(), None, Evaluate(rng, 0.5)
    rows = [obs.copy()]
    while len(rows) * envs.num_envs < count:
        action, carry = policy.act(obs, carry, mode, envs.action_mask)
        envs.send(action)
        tr = envs.recv()
        rows.append(tr.next_obs.copy())
        obs, carry = (envs.reset(tr.ended), Carry.begin(carry, tr.ended)) if tr.ended.any() else (tr.next_obs, carry)
    return np.concatenate(rows)[:count]


def results_of(job: ExportJob) -> State:
    """Return what results.json holds."""
    config, name, facts = job.config, job.checkpoint.name, about(job.checkpoint)
    fresh, training = evaluations.of_checkpoint(job.run.evaluations, name), evaluations.of_training(job.run.path)
    # The best agent knows its own evaluation: after a resume the run's files may have that of another agent.
    its_own = [facts] if "return" in facts else [found for found in training if found["step"] == job.step]
    score, score_of = (fresh[0], "eval") if fresh else (its_own[-1], "training") if its_own else (None, None)
    return {
        "format": FORMAT,
        "environment": job.envs.backend.name,
        "agent": agent_name(config),
        "checkpoint": name,
        "step": job.step,
        "total_steps": config["total_steps"],
        "seed": config["seed"],
        "protocol": {**job.envs.backend.protocol, "eval_epsilon": config["eval"]["epsilon"]},
        "score_of": score_of,
        "score": score and {key: score[key] for key in ("return", "episodes")},
        "evaluations": fresh,
        "training": training,
        "versions": {"training": provenance.published(job.run.path), "export": provenance.versions()},
    }


def agent_name(config: State) -> str:
    """Return the name of the agent of a run."""
    agent = config["agent"]
    return str(agent.get("name") or str(agent["_target_"]).rpartition(".")[2])


def _card(job: ExportJob, obs: Array, results: State, directory: Path) -> Card:
    outputs = network_files.outputs(job.agent, obs[:2])
    return Card(
        agent=results["agent"],
        environment=results["environment"],
        results=results,
        inputs=Tensor(network_files.INPUT, str(obs.dtype), obs.shape[1:]),
        outputs=[Tensor(name, str(x.dtype), x.shape[1:]) for name, x in outputs.items()],
        notes=_notes(job),
        files=[path.name for path in directory.iterdir()],
    )


def _notes(job: ExportJob) -> list[str]:
    """Return what users of the network must know that its inputs and outputs do not say."""
    first = first_action(job.envs.action_space)
    notes = ["`env` in `config.json` says how the environment is made, and how its observations are preprocessed."]
    if job.envs.stack > 1:
        notes.append(f"An observation is a stack of {job.envs.stack} frames, the newest last.")
    if job.config["precision"] == "bf16":
        notes.append("In training the first layers computed in bfloat16. This network computes in float32 throughout.")
    if job.envs.action_mask is not None:
        notes.append("Some actions are not always allowed: take the best one of those that are, not `action`.")
    if isinstance(job.envs.action_space, Box):
        notes.append("Clip `action` to the bounds of the environment's actions.")
    if first is not None:
        notes.append(f"Actions are numbered from 0. Add {first} for the environment, which numbers them from there.")
    return notes


def _draw(job: ExportJob, path: Path) -> Iterator[str]:
    """Draw the run's learning curve; yield why there is none."""
    try:
        from rl_runner.report import pictures

        lines = curves.merge(agent_name(job.config), [curves.read_run(job.run.path)])
        if lines:
            pictures.draw(lines, "steps", path, title=job.envs.backend.name)
    except ImportError:
        yield f"without {CURVE}: matplotlib is not installed: pip install 'rlrun[plot]'"
    except curves.Unreadable as e:
        yield f"without {CURVE}: {e}"


def _film(job: ExportJob, path: Path) -> Iterator[str]:
    """Play an episode into a video, or copy the newest of this agent that the run has; yield which it is."""
    if job.viewer is None:
        found = [file for file in job.run.videos.glob(f"{job.checkpoint.name}_seed*.mp4") if not file.is_symlink()]
        if found:
            newest = max(found, key=lambda file: file.stat().st_mtime)
            shutil.copyfile(newest, path)
            yield f"{VIDEO} is {newest}"
        return
    mode = Evaluate(job.rng, job.config["eval"]["epsilon"])
    (episode,) = evaluate(job.agent, EpisodicVectorEnv(job.viewer, 0, "export video"), 1, mode).episodes
    with VideoFile(path, job.viewer.fps) as video:
        for shown in playback(job.viewer, episode.seed, episode.actions):
            for frame in shown.frames:
                video.write(frame)
    job.viewer.close()
    yield f"{VIDEO} shows an episode of return {episode.total_reward:g}"


def _write_json(path: Path, content: State) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Return an empty directory; at the end its files replace those of an earlier export in `out`.

    If an exception is raised, `out` stays as it was.
    """
    work = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield work
        out.mkdir(exist_ok=True)
        for name in NAMES:
            if (work / name).exists():
                os.replace(work / name, out / name)
            else:
                (out / name).unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"out: {out} cannot be written: {e.strerror or e}") from e
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
