"""The model card of an exported agent: README.md in the form that model hubs expect.

YAML front matter with tags, metrics and a model-index, then text. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from rl_runner.types import State

MEANINGS = {  # of outputs, by name
    "q": "action values",
    "quantiles": "quantiles of the return, at the middles of equal parts of (0, 1)",
    "probabilities": "probabilities of the returns from value.low to value.high in config.json, evenly spaced",
    "logits": "logarithms of the actions' probabilities, up to a constant",
    "mean": "mean of the Gaussian over actions",
    "log_std": "logarithm of its standard deviation",
    "action": "the greedy action, as in evaluation",
}
USAGE = """\
```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
obs = np.zeros({shape}, dtype=np.{dtype})  # a batch of observations
{names} = session.run(None, {{"{input}": obs}})
```"""


@dataclass(frozen=True)
class Tensor:
    """An input or an output of the network.

    Attributes:
        name: its name.
        dtype: numpy's name of its type.
        shape: without the batch.
    """

    name: str
    dtype: str
    shape: Sequence[int]

    @property
    def batch(self) -> str:
        """Its shape with the batch."""
        return f"({', '.join(map(str, ('B', *self.shape)))}{'' if self.shape else ','})"


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        agent: the agent's name.
        environment: the environment's name.
        results: what results.json holds.
        inputs: the network's input.
        outputs: its outputs.
        notes: what users of the network must know, one sentence or more each.
        files: names of the files beside the card.
    """

    agent: str
    environment: str
    results: State
    inputs: Tensor
    outputs: Sequence[Tensor]
    notes: Sequence[str]
    files: Sequence[str]

    @property
    def name(self) -> str:
        """A name for the model's repository."""
        return re.sub(r"[^\w.-]+", "-", f"{self.agent}-{self.environment}").strip("-.")

    def text(self) -> str:
        """Return the whole card."""
        front = yaml.safe_dump(self.front_matter(), sort_keys=False, allow_unicode=True, width=1000)
        parts = [f"---\n{front}---", f"# {self.agent} on {self.environment}", self._summary()]
        if "replay.mp4" in self.files:
            parts.append('<video controls src="replay.mp4"></video>\n\n[An episode of this agent](replay.mp4)')
        if "curve.png" in self.files:
            parts.append("![Return while training](curve.png)")
        parts += ["## Evaluation", self._evaluation(), "## Use", self._use(), "## Files", self._files()]
        return "\n\n".join(parts) + "\n"

    def front_matter(self) -> State:
        """Return what hubs read: tags, metrics and the model-index."""
        tags = ["reinforcement-learning", "deep-reinforcement-learning", self.environment, self.agent, "rlrun", "onnx"]
        front: State = {"library_name": "rlrun", "pipeline_tag": "reinforcement-learning", "tags": tags}
        score = self.results["score"]
        if score is None:
            return front
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        metric = {
            "type": "mean_reward",
            "name": "mean_reward",
            "value": _spread(score, "+/-"),
            "verified": False,
        }
        dataset = {"name": self.environment, "type": self.environment}
        result = {"task": task, "dataset": dataset, "metrics": [metric]}
        return {**front, "metrics": ["mean_reward"], "model-index": [{"name": self.name, "results": [result]}]}

    def _summary(self) -> str:
        results = self.results
        rows = {
            "environment": f"`{self.environment}`",
            "agent": f"`{self.agent}` of rlrun {results['versions']['export']['rlrun']}",
            "training": f"{results['step']:,} of {results['total_steps']:,} steps, seed {results['seed']}",
            "checkpoint": f"`{results['checkpoint']}`",
            "mean return": self._score(),
        }
        return _table(("", ""), list(rows.items()))

    def _score(self) -> str:
        score = self.results["score"]
        if score is None:
            return "not evaluated"
        of = " (standard deviation)" if score["episodes"] > 1 else ""
        text = f"{_spread(score, '±')}{of} over {_episodes(score)}"
        if self.results["score_of"] == "training":
            return f"{text}, measured while training"
        low, high = score["return"]["ci95"]
        return f"{text}, 95 % CI of the mean {low:.2f} to {high:.2f}"

    def _evaluation(self) -> str:
        results = self.results
        text = (
            "Returns are sums of the environment's own rewards, not discounted and not clipped. The agent acts greedily"
        )
        text += ", except with probability `eval_epsilon`. "
        if not results["evaluations"]:
            text += "This agent was evaluated while training only"
            text += ", and if it is the best one, it was chosen by that score: on fresh seeds it may be lower."
            return f"{text}\n\n{_protocol(results['protocol'])}"
        text += "The seeds of these episodes were not used in training, nor to choose the checkpoint. "
        text += "`results.json` has each episode, and the evaluations while training."
        columns = ("seed", "episodes", "mean", "std", "95 % CI", "min", "max", "protocol")
        return f"{text}\n\n{_table(columns, [_evaluation_row(result) for result in results['evaluations']])}"

    def _use(self) -> str:
        names = ", ".join(output.name for output in self.outputs)
        code = USAGE.format(shape=(1, *self.inputs.shape), dtype=self.inputs.dtype, names=names, input=self.inputs.name)
        rows = [(f"input `{self.inputs.name}`", *_cells(self.inputs), "observations as the environment gives them")]
        rows += [(f"output `{o.name}`", *_cells(o), MEANINGS.get(o.name, "")) for o in self.outputs]
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(filter(None, [code, _table(("", "type", "shape", ""), rows), notes]))

    def _files(self) -> str:
        known = {
            "model.onnx": "the network, with all that it does to observations, for batches of any size",
            "model.safetensors": "its weights, by their names in PyTorch",
            "config.json": "the whole configuration of the run",
            "results.json": "evaluations with protocol, seeds and returns; versions",
            "curve.png": "returns while training",
            "replay.mp4": "an episode",
        }
        rows = [(f"`{name}`", what) for name, what in known.items() if name in self.files]
        return _table(("file", "what it holds"), rows)


def _cells(tensor: Tensor) -> tuple[str, str]:
    return tensor.dtype, tensor.batch


def _spread(score: Mapping[str, Any], sign: str) -> str:
    """Return mean and standard deviation of an evaluation; of one episode there is no deviation."""
    mean, std = score["return"]["mean"], score["return"]["std"]
    return f"{mean:.2f} {sign} {std:.2f}" if score["episodes"] > 1 else f"{mean:.2f}"


def _episodes(score: Mapping[str, Any]) -> str:
    return f"{score['episodes']:,} episode{'' if score['episodes'] == 1 else 's'}"


def _evaluation_row(result: State) -> tuple[str, ...]:
    score = result["return"]
    low, high = score["ci95"]
    numbers = (f"{score['mean']:.2f}", f"{score['std']:.2f}", f"{low:.2f} to {high:.2f}")
    ends = (f"{score['min']:.2f}", f"{score['max']:.2f}")
    return str(result["seed"]), str(result["episodes"]), *numbers, *ends, _protocol(result.get("protocol", {}))


def _protocol(protocol: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in protocol.items())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (columns, ["---"] * len(columns), *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
