"""The model card: what hubs read of it, and that it never claims more than was measured."""

from typing import Any

import pytest
import yaml

from rl_runner.report.card import Card, Tensor

STATISTICS = {"mean": 214.8, "std": 27.254, "min": 184.0, "max": 253.0, "ci95": [180.96, 248.64]}
EVALUATION = {"seed": 7, "episodes": 5, "return": STATISTICS, "protocol": {"sticky": 0.25}}


def card(score_of: str | None, episodes: int = 5, **other: Any) -> Card:
    results = {
        "step": 3000,
        "total_steps": 4000,
        "seed": 1,
        "checkpoint": "best_000003000",
        "protocol": {"eval_epsilon": 0.01},
        "score_of": score_of,
        "score": score_of and {"return": STATISTICS, "episodes": episodes},
        "evaluations": [EVALUATION] if score_of == "eval" else [],
        "versions": {"export": {"rlrun": "1.2.3"}},
    }
    outputs = [Tensor("q", "float32", (2,)), Tensor("action", "int64", ())]
    files = ["model.onnx", "curve.png", "replay.mp4"]
    given = {"agent": "dqn", "environment": "ALE/Pong-v5", "notes": ["A | b."], "files": files, **other}
    return Card(results=results, inputs=Tensor("obs", "uint8", (4, 84, 84)), outputs=outputs, **given)


def front(text: str) -> dict[str, Any]:
    empty, matter, _ = text.split("---\n", 2)
    assert empty == ""
    return dict(yaml.safe_load(matter))


def test_what_hubs_read() -> None:
    found = front(card("eval").text())
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert model["name"] == "dqn-ALE-Pong-v5"
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"] == {"name": "ALE/Pong-v5", "type": "ALE/Pong-v5"}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("mean_reward", "214.80 +/- 27.25")
    assert {"reinforcement-learning", "ALE/Pong-v5", "dqn"} <= set(found["tags"])
    assert found["metrics"] == ["mean_reward"]


def test_the_text() -> None:
    text = card("eval").text()
    said = "214.80 ± 27.25 (standard deviation) over 5 episodes, 95 % CI of the mean 180.96 to 248.64"
    assert f"| mean return | {said} |" in text
    assert "| 7 | 5 | 214.80 | 27.25 | 180.96 to 248.64 | 184.00 | 253.00 | sticky 0.25 |" in text
    assert "obs = np.zeros((1, 4, 84, 84), dtype=np.uint8)" in text
    assert "| output `action` | int64 | (B,) |" in text
    assert "(curve.png)" in text
    assert "(replay.mp4)" in text
    without = card("eval", files=["model.onnx"]).text()
    assert "curve.png" not in without
    assert "replay.mp4" not in without


@pytest.mark.parametrize(
    ("episodes", "shown"), [(5, "214.80 ± 27.25 (standard deviation) over 5 episodes"), (1, "214.80 over 1 episode")]
)
def test_a_score_of_training_is_called_so(episodes: int, shown: str) -> None:
    text = card("training", episodes).text()
    assert f"| mean return | {shown}, measured while training |" in text
    assert "on fresh seeds it may be lower" in text
    assert "eval_epsilon 0.01" in text


def test_no_score() -> None:
    text = card(None).text()
    assert "| mean return | not evaluated |" in text
    assert not {"metrics", "model-index"} & front(text).keys()
