"""A network as files that other programs read: ONNX and safetensors. Needs the extra `export`."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.extras import package
from rl_runner.networks.layers import evaluating
from rl_runner.types import Array, Evaluate, HasOutputs, UserError, ValueAgent

BATCHES = (1, 3, 32)  # sizes at which the written network is checked
TOLERANCE = 1e-5  # of numbers up to 1; in proportion where an observation's largest is above 1
INPUT = "obs"


class Checked(NamedTuple):
    """What the comparison of a written network with its agent found.

    Attributes:
        runtime: name and version of what computed.
        observations: compared.
        largest: the largest difference of each output, in proportion to numbers above 1.
        ties: observations where both chose other actions of the same value; None: actions are numbers themselves.
    """

    runtime: str
    observations: int
    largest: dict[str, float]
    ties: int | None

    def __str__(self) -> str:
        batches = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
        found = [f"|Δ{name}| ≤ {number:.1e}" for name, number in self.largest.items()]
        if self.ties is not None:
            ties = f" but {self.ties}, which have two best ones" if self.ties else ""
            found.append(f"the same greedy action in all{ties}")
        where = f"{self.runtime} on {self.observations:,} observations, in batches of {batches}"
        return f"model.onnx in {where}: {', '.join(found)}"


@torch.no_grad()
def outputs(agent: HasOutputs, obs: Array) -> dict[str, Array]:
    """Return an agent's outputs (B, ...) of observations (B, *O), by name."""
    with evaluating(agent.acting):
        return {name: output.numpy() for name, output in agent.outputs(torch.from_numpy(obs)).items()}


def write_onnx(agent: HasOutputs, obs: Array, path: Path) -> None:
    """Write an agent's outputs as ONNX, for batches of any size.

    Args:
        agent: its network is on the CPU.
        obs: (B, *O) two or more observations.
        path: the file.

    Raises:
        UserError: the network does something that ONNX cannot express.
    """
    names, module = list(outputs(agent, obs[:2])), _Outputs(agent).eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                module,
                (torch.from_numpy(obs[:2]),),
                str(path),
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as e:  # of whatever kind, in somebody else's network or in torch
        while e.__cause__ is not None and isinstance(e.__cause__, Exception):
            e = e.__cause__
        why = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise UserError(f"export: {type(agent.acting).__name__} cannot be written as ONNX: {why}") from e
    if program is not None and isinstance(program.model.graph.inputs[0].shape[0], int):
        where = "in forward, or in outputs of the agent, write x.shape[0] instead of len(x)"
        raise UserError(f"export: {type(agent.acting).__name__} is written for one size of batch only; {where}")


def write_weights(network: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of a network as safetensors, by their names in its `state_dict`."""
    path.touch()  # with the permissions of other new files, where safetensors gives them to the owner alone
    permissions = path.stat().st_mode
    package("safetensors.torch", "export", "export").save_model(network, str(path), metadata={"format": "pt"})
    path.chmod(permissions)


def check_onnx(path: Path, agent: HasOutputs, obs: Array) -> Checked | None:
    """Compare a written network with its agent on observations (B, *O); None: there is no onnxruntime.

    Raises:
        UserError: a number differs by more than TOLERANCE, or an action that is not as good is chosen.
    """
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    expected = _expected(agent, obs)
    largest, ties = dict[str, float](), None if expected["action"].dtype.kind == "f" else 0
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        computed = {size: _computed(session, obs, size) for size in BATCHES}
    except Exception as e:  # onnxruntime's own have no common class
        raise UserError(f"export: onnxruntime cannot run the network: {str(e).splitlines()[0]}") from e
    for found in computed.values():
        if ties is not None:
            ties = max(ties, _check_actions(expected, found))
        for name, reference in expected.items():
            if reference.dtype.kind == "f":
                largest[name] = max(largest.get(name, 0.0), _difference(reference, found[name]))
    for name, number in largest.items():
        if not number <= TOLERANCE:
            raise UserError(
                f"export: in onnxruntime the output {name} differs from the agent's by {number:.2e}, more than "
                f"{TOLERANCE:g} (in proportion for numbers above 1); nothing was written"
            )
    return Checked(f"onnxruntime {ort.__version__}", len(obs), largest, ties)


class _Outputs(nn.Module):
    """An agent's outputs as a module: (B, *O) -> tensors (B, ...) in their order."""

    def __init__(self, agent: HasOutputs) -> None:
        super().__init__()
        self.network, self._of = agent.acting, agent.outputs

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._of(obs).values())


def _expected(agent: HasOutputs, obs: Array) -> dict[str, Array]:
    """Return what the agent computes itself: actions as it acts in evaluation, values as it acts by them."""
    parts: list[dict[str, Array]] = []
    greedy = Evaluate(np.random.default_rng(0))
    for rows in np.array_split(obs, -(-len(obs) // BATCHES[-1])):
        part = outputs(agent, rows)
        part["action"], _ = agent.act(rows, None, greedy)
        if isinstance(agent, ValueAgent):
            part["q"] = agent.q_values(torch.from_numpy(rows)).numpy()
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _computed(session: Any, obs: Array, size: int) -> dict[str, Array]:
    """Return what the written network computes, in batches of a size; the last one may be smaller."""
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(None, {INPUT: obs[i : i + size]}) for i in range(0, len(obs), size)]
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}


def _difference(expected: Array, found: Array) -> float:
    """Return the largest difference of an output (B, ...), in proportion to an observation's largest number above 1.

    Rounding errors are in proportion to that: small numbers are sums of large ones.
    """
    expected, found = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    scale = np.abs(expected).max(axis=1, keepdims=True, initial=1.0)
    return float((np.abs(found - expected) / scale).max(initial=0.0))


def _check_actions(expected: dict[str, Array], found: dict[str, Array]) -> int:
    """Check discrete actions; return how many differ where two are the best up to TOLERANCE.

    Raises:
        UserError: others differ.
    """
    ours, theirs = expected["action"], found["action"]
    differ = np.flatnonzero((ours != theirs).reshape(len(ours), -1).any(axis=1))
    score = expected.get("q", expected.get("logits"))
    tied = np.zeros(len(differ), dtype=np.bool_)
    if score is not None and ours.ndim == 1:
        best, chosen = score[differ, ours[differ]], score[differ, theirs[differ]]
        tied = best - chosen <= TOLERANCE * np.maximum(1.0, np.abs(best))
    if not tied.all():
        wrong = f"{int((~tied).sum()):,} of {len(ours):,} observations"
        raise UserError(f"export: in onnxruntime another action is the best in {wrong}; nothing was written")
    return len(differ)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes of torch's exporter, which are about torch, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
