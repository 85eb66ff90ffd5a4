"""The Python API: train, evaluate and load agents from a program.

Errors that a user can put right raise `UserError`, whose message is the line that the command would print.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import signal
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn

from rl_runner import compute, masks, program, rng
from rl_runner.build import checks, jobs, runs, saved
from rl_runner.build.environments import environments, raw_environment, trained_environment
from rl_runner.build.theirs import naming_their_code
from rl_runner.cli.composing import settle
from rl_runner.cli.failures import explain
from rl_runner.cli.table import VERBS
from rl_runner.cli.words import WrongLine, prepare
from rl_runner.commands import eval as evaluation
from rl_runner.commands.train import Interrupted
from rl_runner.envs.spaces import first_action, state_outside
from rl_runner.results import EvalResult, TrainResult
from rl_runner.run.directory import RunDirectory
from rl_runner.types import Agent, Array, BoolArray, Carry, Evaluate, State, UserError, ValueAgent, one_line


def train(overrides: Sequence[str] = (), quiet: bool = False) -> TrainResult:
    """Train an agent, as `rlrun train` does.

    Torch's threads, modes and random streams, and Hydra's state, are afterwards what they were before. While one thread
    is in `train`, `evaluate` or `load`, other threads cannot be.

    Args:
        overrides: the words of the command line: ["env=cartpole", "seed=3"], or ["resume=outputs/..."].
        quiet: print nothing; the lines are still written to the run's train.log.

    Raises:
        UserError: a word or a value that is wrong, a file that cannot be written.
        KeyboardInterrupt: Ctrl-C; the run is saved and can be resumed.
        SystemExit: SIGTERM or another signal that stops a run; it is saved too.
    """
    typed = _names(overrides, "overrides")
    if options := [word for word in typed if word.startswith("-")]:
        raise UserError(f"{options[0]}: options of the command line are not taken here, only key=value")
    here = Path.cwd()  # an environment may change it
    with program.alone(), program.finding_modules():
        cfg, directory, words = _composed(typed)
        chosen = any(word.startswith("hydra.run.dir=") for word in words)
        with program.silent() if quiet else contextlib.nullcontext(), program.keeping_torch():
            try:
                result = runs.train(cfg, directory, words, chosen)
            except Interrupted as e:
                if e.code == 128 + signal.SIGINT:
                    raise KeyboardInterrupt from e
                raise
    return dataclasses.replace(result, run=here / result.run)


def _composed(typed: list[str]) -> tuple[Any, Path, list[str]]:
    """Return the configuration of words, the directory that a new run gets, and the words in Hydra's grammar."""
    from rl_runner.launch.composed import beside_the_program, compose

    words = typed
    with beside_the_program():
        try:
            words = settle(VERBS["train"], prepare(VERBS["train"], typed), typed)
            return *compose(words), words
        except WrongLine as e:
            raise UserError(str(e)) from e
        except UserError:
            raise
        except Exception as e:  # of Hydra's
            raise UserError(explain(VERBS["train"], words, e)) from e


def evaluate(
    run: str | os.PathLike[str],
    *,
    which: str | int = "best",
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 10,
    epsilon: float | None = None,
    sticky: float | None = None,
    device: str = "auto",
    trust: str | Sequence[str] = (),
) -> EvalResult:
    """Play episodes with a saved agent, as `rlrun eval` does, and write the same file into the run's `eval/`.

    If the file cannot be written, for example because the run is read-only, a RuntimeWarning says so.

    Args:
        run: a run's directory, a checkpoint's, or "latest".
        which: which agent of the run: "best", "last" or a step.
        episodes: how many.
        seed: of the episodes, which are never those of training. Another `num_envs` gives other episodes.
        num_envs: how many environments play side by side.
        epsilon: probability of a random action; None: that of the run's own evaluations.
        sticky: Atari: probability that an action is repeated; None: as trained.
        device: where the network computes.
        trust: packages outside rlrun that the run's configuration may use.

    Raises:
        UserError: no such run, or a value out of range.
    """
    settings = {
        "checkpoint": _name(run),
        "which": which,
        "episodes": episodes,
        "seed": seed,
        "num_envs": num_envs,
        "epsilon": epsilon,
        "sticky": sticky,
        "device": device,
        "trust": _names(trust),
        "video": False,
        "video_episodes": 1,
    }
    settings = {key: _plain(value) for key, value in settings.items()}
    with program.alone(), program.finding_modules(), program.keeping_torch(), program.silent():
        with naming_their_code(lambda: saved.config_of(settings)):
            job = jobs.eval_job(settings)
            score = evaluation.score(job)
        try:
            evaluation.save(job, score)
        except OSError as e:
            warnings.warn(f"{e.filename}: cannot be written: {e.strerror}", RuntimeWarning, stacklevel=2)
    result = score.result
    checkpoint = Path(result["checkpoint"]).absolute()
    return EvalResult.of(result["step"], result["return"], result["per_episode"], checkpoint)


def load(
    run: str | os.PathLike[str],
    which: str | int = "best",
    device: str = "cpu",
    trust: str | Sequence[str] = (),
    seed: int = 0,
) -> LoadedAgent:
    """Load a saved agent.

    Args:
        run: a run's directory, a checkpoint's, or "latest".
        which: which agent of the run: "best", "last" or a step.
        device: where its network computes.
        trust: packages outside rlrun that the run's configuration may use.
        seed: of the agent's random stream, which draws actions where `epsilon` is above 0.

    Raises:
        UserError: no such run or checkpoint, or one that is damaged.
    """
    name, which, device, seed = _name(run), str(which), _plain(device), _plain(seed)
    with program.alone(), program.finding_modules(), program.keeping_torch():
        directory, _ = RunDirectory.find(name, which)
        checks.require({"seed": seed}, {"seed": checks.TRAINING["seed"]})
        config = saved.load_run_config(directory, _names(trust))
        name = str(directory.path) if name == "latest" else name
        with (
            naming_their_code(lambda: config),
            contextlib.closing(environments(config["env"], 1, seed, "load")) as envs,
        ):
            agent, checkpoint, step = jobs.saved_agent(copy.deepcopy(config), envs, name, which, device)
    return LoadedAgent(
        agent, config, checkpoint.absolute(), step, envs.observation_space, envs.action_space, device, seed
    )


class LoadedAgent:
    """A trained agent.

    Attributes:
        config: the configuration of its run, a plain dict.
        checkpoint: where it was loaded from.
        step: of training, at which it was saved.
        observation_space: of one observation, as `make_env()` gives it.
        action_space: of one action.
    """

    def __init__(
        self,
        agent: Agent,
        config: State,
        checkpoint: Path,
        step: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        device: str,
        seed: int,
    ) -> None:
        self.config, self.checkpoint, self.step = config, checkpoint, step
        self.observation_space, self.action_space = observation_space, action_space
        self._agent, self._device = agent, compute.device(device)
        self._rng = rng.generator(seed, "load")
        self._first_action = first_action(action_space)
        self._carry: Carry | None = None
        self._rows = 0  # of the batch that the carry is of

    def __repr__(self) -> str:
        """Return the agent's class, its environment, its step and its checkpoint."""
        name = self.config["env"].get("name")
        return f"LoadedAgent({type(self._agent).__name__} on {name}, step {self.step:,}, {self.checkpoint})"

    def act(self, obs: Any, *, epsilon: float | None = 0.0, action_mask: Any = None) -> Any:
        """Return the action for one observation, or an array of actions (N, *D) for a batch of them (N, *O).

        A recurrent agent remembers the last call. With another N than there it forgets, as by `reset`.

        Args:
            obs: as `make_env()` gives it, or N of them along a first axis.
            epsilon: probability of a random action (policy gradients: of one drawn from the policy); 0: always the best
                one; None: that of the run's evaluations.
            action_mask: the actions that are allowed, (A,) or (N, A), as `make_env()` gives them in its info.

        Raises:
            UserError: an observation or a mask of another shape or type, a state outside the observation space, or a
                probability outside [0, 1].
        """
        epsilon = _plain(epsilon)
        checks.require({"epsilon": epsilon}, {"epsilon": checks.EVALUATION["epsilon"]})
        batch, single = self._batch(obs)
        if len(batch) != self._rows:
            self._rows, self._carry = len(batch), None
        mask: BoolArray | None = None
        if action_mask is not None:
            mask = self._mask(action_mask, len(batch), single)
        mode = Evaluate(self._rng, self.config["eval"]["epsilon"] if epsilon is None else epsilon)
        with program.on_cpu():
            action, self._carry = self._agent.act(batch, self._carry, mode, mask)
        action = action if self._first_action is None else action + self._first_action
        if isinstance(space := self.action_space, Box):  # Gaussian policies leave the bounds
            action = np.clip(action.astype(space.dtype), space.low, space.high)
        if not single:
            return action
        return action[0].item() if action[0].ndim == 0 else action[0]

    def reset(self, rows: Any = None) -> None:
        """Begin a new episode. Only recurrent agents remember anything of the last one.

        Args:
            rows: (N,) flags, which observations of a batch begin one; None: all.

        Raises:
            UserError: another number of flags than the last batch had observations.
        """
        if rows is None or self._carry is None:
            self._carry = None
            return
        flags = _array("rows", rows)
        if flags.shape != (self._rows,) or not np.isin(flags, (0, 1)).all():
            raise UserError(f"rows: must be {self._rows} flags, one for each observation, got {one_line(rows)}")
        self._carry = Carry.begin(self._carry, flags.astype(np.bool_))

    def q_values(self, obs: Any) -> Array:
        """Return the action values (A,) of one observation, or (N, A) of a batch.

        Raises:
            AttributeError: this agent has none.
            UserError: an observation of another shape or type, or a state outside the observation space.
        """
        if not isinstance(self._agent, ValueAgent):
            raise AttributeError(f"{type(self._agent).__name__} has no action values")
        batch, single = self._batch(obs)
        with program.on_cpu():
            values: Array = self._agent.q_values(compute.on_device(batch, self._device)).float().cpu().numpy()
        return values[0] if single else values

    @property
    def network(self) -> nn.Module:
        """The network that evaluation acts by, in evaluation mode, on its device.

        Raises:
            AttributeError: this agent has none.
        """
        network = getattr(self._agent, "acting", getattr(self._agent, "network", None))
        if not isinstance(network, nn.Module):
            raise AttributeError(f"{type(self._agent).__name__} has no network")
        return network.eval()

    def make_env(self, raw: bool = False, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Return a new environment of the kind that the agent was trained in.

        Args:
            raw: Gymnasium's own, without the preprocessing that the agent needs for its observations.
            render_mode: "rgb_array" for pictures; with `raw` any mode of the environment's.

        Raises:
            UserError: it cannot be made, or drawn.
        """
        make = raw_environment if raw else trained_environment
        with naming_their_code(lambda: self.config):
            return make(self.config["env"], render_mode)

    def _mask(self, action_mask: Any, count: int, single: bool) -> BoolArray:
        """Return a mask as a batch (count, A)."""
        sizes = masks.sizes_of(self.action_space)
        if not sizes:
            raise UserError(f"action_mask: must be None for actions in {self.action_space}")
        given = _array("action_mask", action_mask)
        shape = (sum(sizes),) if single else (count, sum(sizes))
        if given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
            raise UserError(f"action_mask: must hold True and False, got {one_line(action_mask)}")
        mask: BoolArray = given.astype(np.bool_)
        if mask.shape != shape:
            raise UserError(f"action_mask: must have the shape {shape}, got {mask.shape}")
        mask = mask[None] if single else mask
        if not masks.possible(mask, sizes).all():
            raise UserError("action_mask: must allow at least one action")
        return mask

    def _batch(self, obs: Any) -> tuple[Array, bool]:
        """Return observations as a batch, and whether they were a single one."""
        array, space = _array("obs", obs), self.observation_space
        shape = space.shape or ()
        if array.shape != shape and array.shape[1:] != shape:
            several = f"({', '.join(map(str, ('N', *shape)))}{'' if shape else ','})"
            raise UserError(f"obs: must have the shape {shape}, or {several} for a batch, got {array.shape}")
        if not np.can_cast(array.dtype, space.dtype or array.dtype, casting="same_kind"):
            raise UserError(f"obs: must be {space.dtype}, got {array.dtype}")
        single = array.shape == shape
        with np.errstate(over="ignore"):
            batch = np.ascontiguousarray(array[None] if single else array, dtype=space.dtype)
        if not np.isfinite(batch).all():
            raise UserError("obs: must be finite")
        if (outside := state_outside(space, batch)) is not None:
            raise UserError(f"obs: must be in {space}, got {outside}")
        return batch, single


def _name(run: str | os.PathLike[str]) -> str:
    """Return the name of a run. Raise UserError if it cannot be one."""
    if not isinstance(run, str | os.PathLike):
        raise UserError(f"run: must be a directory's name or path, or latest, got {run!r}")
    return os.fspath(run)


def _names(given: str | Sequence[str], key: str = "trust") -> list[str]:
    """Return a list, also of a single word, which Python takes for a sequence of letters.

    Raises:
        UserError: something else.
    """
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise UserError(f"{key}: must be a list of words, got {given!r}")
    words = [given] if isinstance(given, str) else list(given)
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise UserError(f"{key}: must be a list of words, got {wrong[0]!r} in it")
    return words


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as one of Python's, and a device of torch's by its name."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, torch.device) else value


def _array(key: str, given: Any) -> Array:
    """Return an array of what was given.

    Raises:
        UserError: nothing that NumPy can make an array of.
    """
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as e:  # rows of different lengths; a tensor with a gradient
        raise UserError(f"{key}: must be an array: {one_line(e)}") from e
