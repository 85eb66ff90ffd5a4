"""hydra/launcher=ray on a cluster of this machine, one of whose nodes is killed. Needs 'rlrun[ray]'."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rl_runner.launch import on_ray
from rl_runner.types import UserError
from tests.commandline import refused, rlrun
from tests.traps import curves, set_trap, state


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a node that runs no jobs; all sockets are on the loopback interface."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # that is: only this machine
        patch.setenv("RAY_agent_register_timeout_ms", "120000")  # a busy machine is slow to start a node
        patch.setenv("PYTHONPATH", ":".join(sys.path))  # what an installed package has no need of
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        yield started
        sys.modules["ray"].shutdown()
        started.shutdown()


@pytest.fixture
def command(cluster: Any, workdir: Path) -> Iterator[list[str]]:
    """Return a command line for two nodes that run one job each; the first job at its step kills its node."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    words = [f"hydra.launcher.ray.init.address={cluster.address}", "hydra.sweep.dir=sw", "seed=1,2"]
    yield ["train", "-m", "hydra/launcher=ray", *words, *set_trap(workdir, "node")]
    sys.modules["ray"].shutdown()
    for node in nodes:
        cluster.remove_node(node, allow_graceful=False)


def resumed() -> list[Path]:
    return [log.parent for log in Path("sw").glob("*/train.log") if "at step 20" in log.read_text()]


def whole(run: Path) -> list[str]:
    """Return the curves of the run of the same seed that nothing happened to."""
    done = rlrun("train", f"seed={run.name.rpartition('=')[2]}", *set_trap(Path(), "nothing"), "hydra.run.dir=whole")
    assert done.code == 0, done
    return curves(Path("whole"))


def test_a_job_whose_node_dies_goes_on_at_another_one(command: list[str]) -> None:
    done = rlrun(*command)
    assert (done.code, done.err) == (0, ""), done
    assert "2 of 2 runs finished" in done.out
    (run,) = resumed()
    assert curves(run) == whole(run)
    assert sorted(path.name for path in Path("sw").glob("*_*")) == ["0_seed=1", "1_seed=2"]


def test_one_that_is_not_retried_goes_on_when_the_command_is_given_again(command: list[str]) -> None:
    command.append("hydra.launcher.ray.remote.max_retries=0")
    done = rlrun(*command)
    assert done.code == 1, done
    died, _, head, line = done.err.splitlines()
    assert died.startswith("rlrun: job ")
    assert head == "rlrun: 1 job(s) failed:"
    assert "its process ended before the run did; its log: sw/" in line
    assert sorted(state(run) for run in Path("sw").glob("*_*")) == ["did not finish", "finished"]
    assert not resumed()

    done = rlrun(*command)
    assert (done.code, done.err) == (0, ""), done
    assert done.out.startswith("sw: 1 of 2 jobs have finished already\n")
    (run,) = resumed()
    assert curves(run) == whole(run)


@pytest.mark.skipif(bool(find_spec("ray")), reason="ray is installed")
def test_without_ray_the_extra_is_named(workdir: Path) -> None:
    line = "rlrun: hydra/launcher=ray is not installed: pip install 'rlrun[ray]'"
    assert refused("train", "-m", "hydra/launcher=ray", "seed=1,2") == line


def test_a_machine_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^hydra/launcher=ray: .*/missing on .*: No such file or directory; all machines"
    ):
        on_ray.run(str(tmp_path / "missing"), b"")
