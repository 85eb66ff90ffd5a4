"""`rlrun export`: what is written, that it is what the run holds, and that nothing else is lost."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rl_runner import report
from rl_runner.commands import network_files
from rl_runner.run.checkpoint import about
from rl_runner.types import Array, UserError
from tests.commandline import files, refused, rlrun


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are written without the packages that they need, and not checked; no curve is drawn."""

    def write(*given: object) -> None:
        Path(str(given[-1])).write_text("a network")

    for name in ("onnx", "onnxscript", "safetensors"):
        monkeypatch.setitem(sys.modules, name, pytest)
    monkeypatch.setattr(network_files, "write_onnx", write)
    monkeypatch.setattr(network_files, "write_weights", write)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "rl_runner.report.pictures", None)
    monkeypatch.delattr(report, "pictures", raising=False)


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_a_missing_package_names_its_extra(name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in ("onnx", "onnxscript", "safetensors"):
        monkeypatch.setitem(sys.modules, there, None if there == name else pytest)
    line = f"rlrun: export: needs {name}, which is not installed: pip install 'rlrun[export]'"
    assert refused("export", str(trained)) == line
    assert refused("export", "nowhere").startswith("rlrun: nowhere: no such directory")


def by_hand(weights: dict[str, Array], obs: Array) -> Array:
    """Return the action values of a network of two hidden layers."""
    names = ["torso.hidden.0", "head.values.hidden.0", "head.values.out"]
    x = obs.astype(np.float64)
    for name in names:
        x = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        x = x if name == names[-1] else np.maximum(x, 0)
    return x


def test_the_directory(trained: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    load = pytest.importorskip("safetensors.numpy").load_file
    pytest.importorskip("onnxscript")
    assert rlrun("eval", str(trained), "episodes=3", "seed=5").code == 0
    done = rlrun("export", "latest", "observations=64", "out=new/exported")
    assert (done.code, done.err) == (0, "")
    assert "on 64 observations, in batches of 1, 3 and 32: |Δq| ≤ " in done.out
    assert done.out.endswith("push it:  hf upload YOUR_NAME/dqn-CartPole-v1 new/exported .\n")
    out = Path("new/exported")
    assert len({(out / name).stat().st_mode for name in ("model.onnx", "model.safetensors", "README.md")}) == 1
    session = ort.InferenceSession(str(out / "model.onnx"))
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    q, action = session.run(["q", "action"], {"obs": obs})
    wanted = by_hand(load(str(out / "model.safetensors")), obs)
    np.testing.assert_allclose(q, wanted, atol=1e-5)
    assert action.tolist() == wanted.argmax(axis=1).tolist()
    config = yaml.safe_load((trained / "config.yaml").read_text())
    for key in ("logger", "init_from", "resume"):  # which may hold a directory, or a server's address with a password
        del config[key]
    assert json.loads((out / "config.json").read_text()) == config
    results = json.loads((out / "results.json").read_text())
    evaluation = json.loads((trained / "eval/best_000000040_seed5_episodes_3.json").read_text())
    assert results["evaluations"][0]["per_episode"] == evaluation["per_episode"]
    assert results["score"] == {"return": evaluation["return"], "episodes": 3}
    card = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    (metric,) = card["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == f"{evaluation['return']['mean']:.2f} +/- {evaluation['return']['std']:.2f}"
    assert str(Path.cwd()) not in "".join(path.read_text() for path in (out / "results.json", out / "README.md"))


def test_the_score_of_the_best_agent_is_its_own(trained: Path, quick: None) -> None:
    """After a resume that is not exact the run's files have the evaluation of another agent at that step."""
    (trained / "evaluations.jsonl").write_text('{"step": 40, "seed": 0, "return": 1.0, "length": 1}\n')
    assert rlrun("export", str(trained), "observations=32").code == 0
    (out,) = Path().rglob("results.json")
    wanted = about(trained / "checkpoints" / "best")
    results = json.loads(out.read_text())
    assert results["score"] == {"return": wanted["return"], "episodes": wanted["episodes"]}
    assert results["score_of"] == "training"


def test_only_an_export_is_replaced(trained: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine").mkdir()
    Path("mine/results.json").write_text('{"format": "another"}')
    Path("mine/thesis.md").write_text("mine")
    line = refused("export", str(trained), "out=mine")
    assert line == "rlrun: out: mine holds results.json, which is of no export; choose another directory"
    assert "out: mine/thesis.md cannot be written" in refused("export", str(trained), "out=mine/thesis.md")
    done = rlrun("export", str(trained), "observations=32")
    assert done.code == 0
    assert "\nnot checked: needs onnxruntime, which is not installed: pip install 'rlrun[export]'\n" in done.out
    assert "\nwithout curve.png: matplotlib is not installed: pip install 'rlrun[plot]'\n" in done.out
    assert f"\nno score on fresh seeds: rlrun eval {trained}/checkpoints/best_000000040, then" in done.out
    (trained / "export/replay.mp4").write_text("of another agent")
    (trained / "export/.gitattributes").write_text("")
    (trained / "videos").mkdir()
    (trained / "videos/best_000000040_seed0_0_return_9.mp4").symlink_to(Path("mine/thesis.md").resolve())
    before = files()

    def wrong(*_: object) -> None:
        raise UserError("export: in onnxruntime the output q differs")

    with monkeypatch.context() as patched:
        patched.setattr(network_files, "check_onnx", wrong)
        assert (
            refused("export", str(trained), "observations=32") == "rlrun: export: in onnxruntime the output q differs"
        )
    assert files() == before
    assert rlrun("export", str(trained), "observations=32").code == 0
    assert files() == before - {f"./{trained}/export/replay.mp4"}  # no link is followed


def test_agents_without_a_network_and_links(trained: Path, quick: None) -> None:
    words = ["total_steps=20", "eval.episodes=1", "hydra.run.dir=outputs/table"]
    assert rlrun("train", "agent=q_learning", "env=frozenlake", *words).code == 0
    assert "export: QLearning has no network; what it learned is in outputs/table/" in refused(
        "export", "outputs/table"
    )
    Path("elsewhere").mkdir()
    (trained / "export").symlink_to(Path("elsewhere").resolve())
    assert "is a symbolic link" in refused("export", str(trained))


def test_a_network_with_a_memory_is_refused(workdir: Path, quick: None) -> None:
    words = ["total_steps=32", "rollout_steps=16", "batch_size=16", "eval.episodes=1", "hydra.run.dir=outputs/gru"]
    assert rlrun("train", "agent=ppo", "env=cartpole", "tuned=none", "network.memory=gru", *words).code == 0
    assert (
        refused("export", "outputs/gru") == "rlrun: export: networks with a memory (network.memory) are not supported"
    )
    assert not Path("outputs/gru/export").exists()
