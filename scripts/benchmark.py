"""Measure what things cost.

    scripts/benchmark updates               # one update of DQN, of DQN plus each part, of Rainbow, on Atari frames
    scripts/benchmark replay                # drawing a batch and writing priorities back, at a million rows
    scripts/benchmark kernels               # an update beside its convolution and matrix kernels alone
    scripts/benchmark shares                # whole training beside its convolution and matrix kernels alone
    scripts/benchmark collect               # steps without learning, beside emulator and forward pass alone
    scripts/benchmark profile               # where the time of a training step goes
    scripts/benchmark scaling               # steps/s against environments, replay size and batch
    scripts/benchmark memory                # of a million Atari frames, and of the process
    scripts/benchmark peers                 # steps/s beside Stable-Baselines3's, Tianshou's and CleanRL's

It runs in the environment of scripts/rlrun, set up on first use. Variants take turns, and what is compared is the ratio
within each turn, so that other work on the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from peers import GPU_TURN, ON_GPU, RECIPE, TURN, WARM_UP, rlrun
from rich.console import Console
from rich.table import Table

from rl_runner import compute
from rl_runner.build import jobs as build
from rl_runner.build import saved
from rl_runner.build.environments import environments
from rl_runner.launch import tuned
from rl_runner.replay.samplers import Prioritized, Uniform
from rl_runner.types import Sampler, Transition

ROOT = Path(__file__).resolve().parent.parent
PEERS = ["stable-baselines3==2.9.2", "tianshou==2.0.1", "ale-py==0.12.1", "opencv-python-headless", "gymnasium[mujoco]"]
# CleanRL's files on PyPI need the Gym of their time. Their own pins want Python 3.10, so they are installed without.
CLEANRL = [
    "gym==0.23.1",
    "gymnasium==0.29.1",
    "numpy<2",
    "pandas<3",
    "tensorboard",
    "matplotlib",
    "cloudpickle",
    "pygame",
]
CLEANRL_ALONE = ["--no-deps", "--ignore-requires-python", "cleanrl==1.2.0", "stable-baselines3==1.8.0"]
OURS_ON_CPU = {  # beside the recipe as it is
    "pong": ["rlrun_batch", "rlrun_bf16"],
    "cartpole": ["rlrun_compiled"],
    "ppo_cartpole": ["rlrun_compiled"],
    "ppo_pong": ["rlrun_one_bf16"],
}
VARIANTS = {  # name: what is added to DQN
    "dqn": ["ablation=dqn"],
    "double": ["ablation=dqn_double"],
    "n-step": ["ablation=dqn_n_step"],
    "prioritized": ["ablation=dqn_prioritized"],
    "dueling": ["ablation=dqn_dueling"],
    "noisy": ["ablation=dqn_noisy"],
    "munchausen": ["ablation=dqn", "agent.munchausen=true"],
    "c51": ["ablation=dqn_c51"],
    "qr_dqn": ["ablation=dqn", "value=qr_dqn"],
    "iqn": ["ablation=dqn", "value=iqn"],
    "rainbow": ["ablation=rainbow"],
}


def updates(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time whole updates: a batch drawn, learned from, priorities written back."""
    torch.set_num_threads(arguments.threads)
    variants = {name: update_of(words, arguments) for name, words in VARIANTS.items()}
    return in_turns(variants, arguments.rounds)


def update_of(words: list[str], arguments: argparse.Namespace) -> Callable[[], None]:
    """Build a variant, fill its replay memory with random play, return a function that does one update."""
    words = ["env=pong", "tuned=none", "env.num_envs=4", *words]
    words += [f"network/torso={arguments.torso}", f"batch_size={arguments.batch_size}"]
    loop = pong([*words, "replay.capacity=4000", "exploration=epsilon_greedy"], 3000, arguments.device)

    def update() -> None:
        batch = loop.replay.sample(loop.batch_size)
        loop.replay.update(batch.ids, loop.agent.learn(batch).priority)
        if arguments.device != "cpu":
            torch.cuda.synchronize()

    return update


def pong(words: list[str], steps: int, device: str = "cpu") -> Any:
    """Build Pong's training loop and take steps without learning; it learns afterwards."""
    compute.keep_freed_memory()
    cfg = saved.plain(tuned.compose(words))
    envs = environments(cfg["env"], cfg["env"]["num_envs"], 0, "train")
    loop: Any = build.learner_of(cfg, envs, torch.device(device)).loop()
    loop.learning_starts = 2**62
    while loop.replay.added < steps:
        loop.step()
    loop.learning_starts = 0
    return loop


KERNELS = (
    "aten::mkldnn_convolution",
    "aten::convolution_backward",
    "aten::addmm",
    "aten::baddbmm",
    "aten::mm",
    "aten::bmm",
)


def kernels(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time DQN's update, and its convolutions and matrix products alone."""
    torch.set_num_threads(arguments.threads)
    rows = []
    for batch_size in (32, 128):
        for precision in ("fp32", "bf16"):
            arguments.batch_size = batch_size
            update = update_of(["ablation=dqn", f"precision={precision}"], arguments)
            cost, ratios = beside_kernels(update, arguments.rounds)
            cost["us/sample"] = f"{float(cost['ms']) / batch_size * 1e3:.0f}"
            rows.append({"variant": f"batch {batch_size}, {precision}", **cost, **ratios})
    return rows


def shares(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time turns of whole training, as `peers` does, and the convolutions and matrix products in them alone."""
    training = {task: rlrun(task, "rlrun", arguments.device) for task in installed(arguments.tasks or TURN)}
    for task, steps in training.items():
        advance(steps, WARM_UP[task])
    torch.set_num_threads(arguments.threads)
    rows = []
    for task, steps in training.items():
        cost, ratios = beside_kernels(functools.partial(advance, steps, TURN[task]), arguments.rounds)
        share = f"{float(cost['kernels ms']) / float(cost['ms']):.2f}"
        rows.append({"task": task, **cost, **ratios, "share": share})
    return rows


def advance(steps: Iterator[None], count: int) -> None:
    """Take a number of steps."""
    for _ in range(count):
        next(steps)


def beside_kernels(call: Callable[[], object], rounds: int) -> tuple[dict[str, str], dict[str, str]]:
    """Time a call, and in the next call, by torch's profiler, its convolutions and matrix products alone.

    Returns:
        The medians in milliseconds, and the median and quartiles of the whole divided by the kernels.
    """
    whole, alone = [], []
    for _ in range(3 + rounds):
        whole.append(timed(call))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
            call()
        events = profiled.key_averages()
        alone.append(sum(e.cpu_time_total for e in events if e.key in KERNELS) / 1e6)
    cost = {"ms": f"{np.median(whole[3:]) * 1e3:.2f}", "kernels ms": f"{np.median(alone[3:]) * 1e3:.2f}"}
    return cost, spread(np.divide(whole[3:], alone[3:]))


def collect(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time steps of the whole loop without learning, then ale-py's environments at random and the network alone."""
    torch.set_num_threads(arguments.threads)
    rows = []
    for n in (1, 4, 8, 16, 32):
        words = [f"env.num_envs={n}", f"network/torso={arguments.torso}", "replay.capacity=20_000"]
        loop = pong(["experiment=pong_84", *words], 100)
        loop.learning_starts = 2**62
        emulator = AtariVectorEnv("pong", n, reward_clipping=False)
        obs, action = torch.from_numpy(emulator.reset(seed=0)[0]), np.random.default_rng(0).integers(6, size=(999, n))
        turn = iter(range(10**9))

        def bare(emulator: Any = emulator, action: Any = action, turn: Any = turn) -> None:
            emulator.step(action[next(turn) % 999])

        def forward(loop: Any = loop, obs: Any = obs) -> None:
            loop.agent.training_q_values(obs)

        seconds = np.array([[timed(f) for f in (loop.step, bare, forward)] for _ in range(20 * arguments.rounds)])
        whole, *parts = np.median(seconds[50:], axis=0)
        rates = {"steps/s": f"{n / whole:.0f}", "emulator and network alone": f"{n / sum(parts):.0f}"}
        rows.append({"variant": f"env.num_envs={n}", **rates, "share": f"{sum(parts) / whole:.2f}"})
    return rows


def profile(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure where the time of a training step goes, on the recipe that `peers` compares on."""
    torch.set_num_threads(arguments.threads)
    loop = pong([*RECIPE["pong"], *arguments.words], 1_500, arguments.device)
    places = {
        "act": (loop.agent, "act"),
        "emulator: begin a step": (loop.envs, "send"),
        "emulator: wait for its end": (loop.envs, "recv"),
        "store": (loop.replay, "add"),
        "sample": (loop.replay, "sample"),
        "learn: backward": (torch.Tensor, "backward"),
        "learn: optimizer": (loop.agent.optimizer, "step"),
        "learn: forward, loss, the rest": (loop.agent, "learn"),
        "all": (loop, "step"),
    }
    seconds = dict.fromkeys(places, 0.0)
    for name, (owner, attribute) in places.items():
        setattr(owner, attribute, clocked(getattr(owner, attribute), name, seconds))
    take(loop, 100)
    seconds.update(dict.fromkeys(places, 0.0))
    steps = 20 * arguments.rounds
    take(loop, steps)
    seconds["learn: forward, loss, the rest"] -= seconds["learn: backward"] + seconds["learn: optimizer"]
    seconds["loop and clock"] = 2 * seconds["all"] - sum(seconds.values())
    shares = {name: f"{part / seconds['all']:.1%}" for name, part in seconds.items()}
    return [{"variant": k, "ms/step": f"{s / steps * 1e3:.3f}", "share": shares[k]} for k, s in seconds.items()]


def clocked(call: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Return the function, which then adds the time that it takes to `seconds`."""

    def clocked_call(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - start

    return clocked_call


SCALING = {  # what grows: its values; the rest as in experiment=pong_84; 8 transitions replayed per step by default
    "env.num_envs": [1, 2, 4, 8, 16, 32],
    "replay.capacity": [10_000, 100_000, 1_000_000],
    "batch_size": [32, 64, 128, 256, 512],
}


def scaling(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time training, one thing growing at a time."""
    torch.set_num_threads(arguments.threads)
    rows = []
    for key, values in SCALING.items():
        variants = {}
        for value in values:
            words = ["experiment=pong_84", f"{key}={value}"]
            words += [f"network/torso={arguments.torso}", f"precision={arguments.precision}"]
            words += [f"learn_every_steps={value // 8}", "env.num_envs=8"] if key == "batch_size" else []
            loop = pong(words, 2_000)
            if key == "replay.capacity":
                fill(loop, value)
            variants[str(value)] = (loop, max(128, 2 * loop.learn_every.period))
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(1 + arguments.rounds):
            for name, (loop, steps) in variants.items():
                times[name].append(timed(functools.partial(take, loop, steps)) / steps)
        for name, seconds in times.items():
            middle = float(np.median(seconds[1:]))
            rows.append({"variant": key, "value": name, "steps/s": f"{1 / middle:.0f}"})
    return rows


def draw_scaling(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw steps/s against what grows, a panel each."""
    from rl_runner.report import pictures  # needs matplotlib

    with pictures.picture(path, 10, 3.2, columns=[1] * len(SCALING)) as panels:
        for panel, key in zip(panels, SCALING, strict=True):
            values, rates = zip(
                *((int(row["value"]), int(row["steps/s"])) for row in rows if row["variant"] == key), strict=True
            )
            panel.plot(values, rates, "o-", color=pictures.COLOURS[0])
            panel.set_xscale("log", base=10 if key == "replay.capacity" else 2)
            panel.set_xticks(values, [f"{value:,}" for value in values])
            panel.set_xlabel(key)
            panel.set_ylim(0, 1.1 * max(int(row["steps/s"]) for row in rows))
        panels[0].set_ylabel("training steps/s")


def fill(loop: Any, rows: int) -> None:
    """Store the present screens until the replay memory is full."""
    n = loop.envs.num_envs
    no = np.zeros(n, dtype=np.bool_)
    tr = Transition(loop.obs, np.zeros(n, dtype=np.int64), np.zeros(n, np.float32), no, no, no, loop.obs)
    while loop.replay.added < rows:
        loop.replay.add(tr)


def take(loop: Any, steps: int) -> None:
    """Train for so many steps."""
    end = loop.clock.steps + steps
    while loop.clock.steps < end:
        loop.step()


def memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Fill a replay memory with a million rows of Pong, train a little, return how much memory both take."""
    loop = pong(["experiment=pong_84", "replay.capacity=1_000_000", f"network/torso={arguments.torso}"], 2_000)
    fill(loop, 1_000_000)
    take(loop, 400)
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes
    taken = {"replay memory": loop.replay.storage.nbytes, "process, at most": process}
    return [{"variant": name, "GB": f"{nbytes / 1e9:.2f}"} for name, nbytes in taken.items()]


def draw(sampler: Sampler, size: int, rng: np.random.Generator) -> object:
    """Draw a batch and return its weights."""
    return sampler.weight(sampler.sample(size, 0, rng), 0)


def replay(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time samplers alone, full with a million rows."""
    rows, rng = 1_000_000, np.random.default_rng(0)
    prioritized = Prioritized(rows)
    samplers: dict[str, Sampler] = {"uniform": Uniform(), "prioritized": prioritized}
    variants: dict[str, Callable[[], object]] = {}
    for name, sampler in samplers.items():
        sampler.add(np.arange(rows))
        sampler.update(np.arange(rows), torch.rand(rows))
        ids, priority = rng.integers(rows, size=arguments.batch_size), torch.rand(arguments.batch_size)
        variants |= {
            f"{name}: sample": functools.partial(draw, sampler, arguments.batch_size, rng),
            f"{name}: update": functools.partial(sampler.update, ids, priority),
            f"{name}: add": functools.partial(sampler.add, ids[:1]),
        }
    print(f"prioritized adds {prioritized.nbytes / 1e6:.1f} MB at {rows:,} rows")
    return in_turns(variants, 20 * arguments.rounds)


def peers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time whole training, environments and all: ours, and others' from a throw-away environment."""
    rows, device = [], arguments.device
    with tempfile.TemporaryDirectory() as directory:
        theirs = arguments.peers_python or python_with(Path(directory) / "peers", PEERS)
        cleanrls = arguments.cleanrl_python or python_with(Path(directory) / "cleanrl", CLEANRL, CLEANRL_ALONE)
        turn_of = {"pong": GPU_TURN} if device != "cpu" else TURN
        for task in installed([task for task in turn_of if task in (arguments.tasks or TURN)]):
            steps = turn_of[task]
            with ExitStack() as stack:
                ours = list(OURS_ON_CPU.get(task, []))
                ours += ["rlrun_compiled", *ON_GPU] if device != "cpu" else []
                libraries = {"rlrun": sys.executable, "sb3": theirs}
                libraries |= {"tianshou": theirs} if task in ("pong", "cartpole") else {}
                libraries |= {"cleanrl": cleanrls} if task in ("ppo_cartpole", "sac_pendulum") else {}
                libraries |= dict.fromkeys(ours, sys.executable)
                libraries = {k: v for k, v in libraries.items() if k in (arguments.only or libraries)}
                turns = {k: stack.enter_context(trainer(v, k, task, device)) for k, v in libraries.items()}
                for row in in_turns(turns, arguments.rounds, warm_ups=3 if device == "cpu" else 1):
                    row["steps/s"] = f"{steps / float(row['ms']) * 1e3:.0f}"
                    rows.append({"task": task, **row})
    return rows


def installed(tasks: Iterable[str]) -> list[str]:
    """Return the tasks whose packages are installed."""
    if missing := "sac_halfcheetah" in tasks and find_spec("mujoco") is None:
        print("sac_halfcheetah: left out; needs the extra mujoco")
    return [task for task in tasks if not (missing and task == "sac_halfcheetah")]


def python_with(directory: Path, *groups: list[str]) -> str:
    """Install the torch that is here and groups of packages, one after the other; return the path of their Python."""
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    torch_here = f"torch=={torch.__version__.partition('+')[0]}"
    extra = os.environ.get("RLRUN_PIP_ARGS", "").split()
    for packages in ([torch_here, *groups[0]], *groups[1:]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages, *extra], check=True)
    return python


@contextmanager
def trainer(python: str, library: str, task: str, device: str) -> Iterator[Callable[[], object]]:
    """Start a library's training; return a function that has it take a turn, once it is ready."""
    command = [python, str(ROOT / "scripts" / "peers.py"), library, task, device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        read, write = process.stdout, process.stdin
        ready = False

        def turn() -> object:
            nonlocal ready
            while not ready:
                line = read.readline()
                if not line:
                    raise SystemExit(f"benchmark: {library} could not train {task}; see above")
                ready = line == "ready\n"
            print(file=write, flush=True)
            return read.readline()

        try:
            yield turn
        finally:
            process.kill()


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int, warm_ups: int = 3) -> list[dict[str, Any]]:
    """Time all variants, one call each a round; return medians, and ratios to the first within the rounds."""
    for call in variants.values():
        for _ in range(warm_ups):
            call()
    seconds = np.array([[timed(call) for call in variants.values()] for _ in range(rounds)])  # (rounds, variants)
    ratios = seconds / seconds[:, :1]
    rows = []
    for i, name in enumerate(variants):
        ms = float(np.median(seconds[:, i])) * 1e3
        rows.append({"variant": name, "ms": f"{ms:.3f}", **spread(ratios[:, i])})
    return rows


def spread(ratios: Any) -> dict[str, str]:
    """Return the median and the quartiles of ratios."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"ratio": f"{middle:.2f}", "q1": f"{low:.2f}", "q3": f"{high:.2f}"}


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


MEASURED = {
    "updates": updates,
    "replay": replay,
    "kernels": kernels,
    "shares": shares,
    "collect": collect,
    "profile": profile,
    "memory": memory,
    "scaling": scaling,
    "peers": peers,
}


def main() -> None:
    """Measure, print the table and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MEASURED))
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--torso", default="nature_cnn", help="default: nature_cnn")
    parser.add_argument(
        "--rounds", type=int, help="default: 50; of peers, shares and scaling, whose rounds take long, 7"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: 1")
    parser.add_argument("--precision", default="fp32", help="of scaling; default: fp32")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks", help="default: outputs/benchmarks")
    parser.add_argument("--only", nargs="+", help="of peers: these alone")
    parser.add_argument("--tasks", nargs="+", choices=TURN, help="of peers and shares: these alone, on a CPU")
    parser.add_argument("--words", nargs="+", default=[], help="of profile: overrides of the recipe")
    parser.add_argument("--peers-python", help="of an environment that has the peers already")
    parser.add_argument("--cleanrl-python", help="of an environment that has CleanRL 1.2.0 already")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (7 if arguments.what in ("peers", "shares", "scaling") else 50)
    rows = MEASURED[arguments.what](arguments)
    how = {"profile": f"means over {20 * arguments.rounds} steps", "memory": "a million rows"}
    table = Table(title=f"{arguments.what}: {how.get(arguments.what, f'median of {arguments.rounds} rounds')}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("task", "variant") else "right")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    where = "" if arguments.device == "cpu" else f"_{arguments.device}"
    path = arguments.out / f"benchmark_{arguments.what}{where}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {path}")
    if arguments.what == "scaling":
        draw_scaling(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
