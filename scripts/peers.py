"""One library that trains on one task by one recipe, in turns: what `scripts/benchmark peers` starts and times.

    python scripts/peers.py LIBRARY TASK [DEVICE]    # sb3, tianshou, cleanrl or one of OURS; a task of RECIPE; cpu

It prints "ready" once learning is under way; then for each line of standard input it trains TURN steps and prints the
seconds that they took. On a GPU, which is faster, a turn is GPU_TURN steps.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# The recipe of all. pong: RL Zoo's and CleanRL's batch of 32 every 4 steps on the network of Mnih et al. 2015, one
# environment. cartpole: RL Zoo's two layers of 256, batch 64, 128 updates every 256 steps. ppo_cartpole: RL Zoo's, 8
# environments, 32 steps each, 20 epochs in batches of 256. ppo_pong: RL Zoo's and CleanRL's, 8 environments, 128 steps
# each, 4 epochs in batches of 256. sac_pendulum, sac_halfcheetah: two layers of 256, one update of 256 a step.
# Steps before the first turn; of the agents with a replay memory the first 1,000 without learning.
WARM_UP = {"pong": 1_500, "cartpole": 2_048, "ppo_cartpole": 2_048, "ppo_pong": 1_024, "sac_pendulum": 1_200}
WARM_UP["sac_halfcheetah"] = WARM_UP["sac_pendulum"]
TURN = {"pong": 400, "cartpole": 2_048, "ppo_cartpole": 2_048, "ppo_pong": 1_024, "sac_pendulum": 200}  # steps
TURN["sac_halfcheetah"] = TURN["sac_pendulum"]
GPU_TURN = 640
RECIPE = {
    "pong": [
        *["experiment=pong_84", "env.num_envs=1", "network/torso=nature_cnn", "network.init=default", "batch_size=32"],
        *["agent.double=false", "agent.n_step=1", "learning_starts=1_000", "replay.capacity=10_000"],
        *["sync.every_updates=1_000", "exploration.end=0.01"],
    ],
    "cartpole": ["env=cartpole", "agent.double=false", "agent.n_step=1"],
    "ppo_cartpole": ["agent=ppo", "env=cartpole"],
    "ppo_pong": ["agent=ppo", "env=pong", "tuned=ppo/atari", "precision=fp32"],
    "sac_pendulum": ["agent=sac", "env=pendulum", "tuned=none"],
    "sac_halfcheetah": ["agent=sac", "env=halfcheetah", "tuned=none"],
}
OURS = {  # what its name adds to the recipe
    "rlrun": [],
    "rlrun_compiled": ["agent.compiled=true"],
    "rlrun_batch": ["env.num_envs=8", "batch_size=128", "learn_every_steps=16"],  # as many samples per step
    "rlrun_bf16": ["env.num_envs=8", "batch_size=128", "learn_every_steps=16", "precision=bf16"],
}
WIDE = ["env.num_envs=64", "batch_size=512", "learn_every_steps=64"]  # again as many samples per step
ON_GPU = {
    "rlrun_host": ["replay.frames=host"],
    "rlrun_one_bf16": ["precision=bf16"],
    "rlrun_batch_compiled": [*OURS["rlrun_batch"], "agent.compiled=true"],
    "rlrun_bf16_compiled": [*OURS["rlrun_bf16"], "agent.compiled=true"],
    "rlrun_wide": WIDE,
    "rlrun_wide_host": [*WIDE, "replay.frames=host"],
    "rlrun_wide_bf16": [*WIDE, "precision=bf16"],
    "rlrun_wide_bf16_compiled": [*WIDE, "precision=bf16", "agent.compiled=true"],
}
OURS |= ON_GPU


def rlrun(task: str, name: str, device: str) -> Iterator[None]:
    """Train with the runner of this repository, loop and all."""
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line has it, before torch is loaded
    import torch

    from rl_runner import compute
    from rl_runner.build import jobs as build
    from rl_runner.build import saved
    from rl_runner.build.environments import environments
    from rl_runner.launch import tuned
    from rl_runner.networks.inputs import looks_like_image

    cfg = saved.plain(tuned.compose([*RECIPE[task], *OURS[name]]))
    compute.keep_freed_memory()
    envs = environments(cfg["env"], cfg["env"]["num_envs"], 0, "train")
    compute.set_threads(cfg["num_threads"], looks_like_image(envs.observation_space))
    loop = build.learner_of(cfg, envs, torch.device(device)).loop()
    while True:
        loop.step()
        yield from [None] * envs.num_envs


def in_thread(train: Callable[[Callable[[], None]], object], num_envs: int) -> Iterator[None]:
    """Run a loop that is not ours to step in a thread of its own; `train` has it call a function at each step."""
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def pause() -> None:
        done.release()
        go.acquire()

    def run() -> None:
        go.acquire()
        train(pause)

    threading.Thread(target=run, daemon=True).start()
    while True:
        go.release()
        done.acquire()
        yield from [None] * num_envs


def sb3(task: str, device: str) -> Iterator[None]:
    """Train with Stable-Baselines3."""
    import ale_py  # noqa: F401 - registers the games
    from stable_baselines3 import DQN, PPO, SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    class Turns(BaseCallback):
        def __init__(self, pause: Callable[[], None]) -> None:
            super().__init__()
            self.pause = pause

        def _on_step(self) -> bool:
            self.pause()
            return True

    if task == "pong":
        envs: Any = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=1, seed=0), 4)
        recipe: dict[str, Any] = {"buffer_size": 10_000, "batch_size": 32, "train_freq": 4, "gradient_steps": 1}
        recipe |= {"learning_rate": 1e-4, "target_update_interval": 1_000, "policy": "CnnPolicy"}
        epsilon = 0.01
    elif task == "cartpole":
        envs = make_vec_env("CartPole-v1", n_envs=1, seed=0)
        recipe = {"buffer_size": 100_000, "batch_size": 64, "train_freq": 256, "gradient_steps": 128}
        recipe |= {"learning_rate": 2.3e-3, "policy": "MlpPolicy", "policy_kwargs": {"net_arch": [256, 256]}}
        epsilon = 0.04
    if task == "ppo_cartpole":
        envs = make_vec_env("CartPole-v1", n_envs=8, seed=0)
        recipe = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98}
        model: Any = PPO("MlpPolicy", envs, learning_rate=1e-3, seed=0, device=device, **recipe)
    elif task == "ppo_pong":
        envs = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=8, seed=0), 4)
        recipe = {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "ent_coef": 0.01, "clip_range": 0.1}
        model = PPO("CnnPolicy", envs, learning_rate=2.5e-4, seed=0, device=device, **recipe)
    elif task.startswith("sac"):
        envs = make_vec_env("Pendulum-v1" if task == "sac_pendulum" else "HalfCheetah-v5", n_envs=1, seed=0)
        model = SAC("MlpPolicy", envs, learning_starts=1_000, buffer_size=100_000, seed=0, device=device)
    else:
        # Constant, because it would stay near 1 in a run without an end, whose random actions need no network.
        recipe |= {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
        model = DQN(env=envs, learning_starts=1_000, seed=0, device=device, **recipe)

    return in_thread(lambda pause: model.learn(10**9, callback=Turns(pause)), envs.num_envs)


def cleanrl(task: str, device: str) -> Iterator[None]:
    """Train with CleanRL's files as they are published, on the Gym of their time; what they print is left out."""
    import gym
    from gym.vector import SyncVectorEnv

    recipe = {"ppo_cartpole": ["--num-envs", "8", "--num-steps", "32", "--num-minibatches", "1"]}
    recipe["ppo_cartpole"] += ["--update-epochs", "20", "--learning-rate", "1e-3", "--gamma", "0.98"]
    recipe["sac_pendulum"] = ["--env-id", "Pendulum-v1", "--learning-starts", "1000", "--buffer-size", "100000"]
    module = {"ppo_cartpole": "cleanrl.ppo", "sac_pendulum": "cleanrl.sac_continuous_action"}[task]
    sys.argv[1:] = ["--total-timesteps", str(10**8), "--cuda", str(device != "cpu"), *recipe[task]]
    os.chdir(tempfile.mkdtemp())  # for its logs

    def train(pause: Callable[[], None]) -> None:
        class Turns(SyncVectorEnv):
            def step_wait(self) -> Any:
                pause()
                return super().step_wait()

        gym.vector.SyncVectorEnv = Turns
        runpy.run_module(module, {"print": lambda *line: None}, "__main__")

    return in_thread(train, 8 if task == "ppo_cartpole" else 1)


def tianshou(task: str, device: str) -> Iterator[None]:
    """Train with Tianshou's collector and algorithm, as its trainer does."""
    import gymnasium as gym
    from tianshou.algorithm.algorithm_base import policy_within_training_step
    from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet
    from tianshou.utils.net.common import Net

    pong = task == "pong"
    if pong:
        envs = DummyVectorEnv([_stacked_pong])
        model: Any = ScaledObsInputActionReprNet(DQNet(4, 84, 84, 6)).to(device)
        buffer = VectorReplayBuffer(10_000, 1, ignore_obs_next=True, save_only_last_obs=True, stack_num=4)
        every, updates, batch_size, period, lr = 4, 1, 32, 1_000, 1e-4
    else:
        envs = DummyVectorEnv([lambda: gym.make("CartPole-v1")])
        model = Net(state_shape=4, action_shape=2, hidden_sizes=[256, 256]).to(device)
        buffer = VectorReplayBuffer(100_000, 1)
        every, updates, batch_size, period, lr = 256, 128, 64, 128, 2.3e-3
    policy = DiscreteQLearningPolicy(model=model, action_space=envs.action_space[0], eps_training=0.1)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=lr), gamma=0.99, target_update_freq=period)
    collector = Collector(policy, envs, buffer, exploration_noise=True)
    collector.reset()
    collector.collect(n_step=1_000, random=True)
    yield from [None] * 1_000
    with policy_within_training_step(policy):
        while True:
            collector.collect(n_step=every)
            for _ in range(updates):
                algorithm.update(buffer=buffer, sample_size=batch_size)
            yield from [None] * every


def _stacked_pong() -> Any:
    """Make Pong with Gymnasium's own wrappers; Tianshou's do not run on every version of NumPy."""
    import ale_py  # noqa: F401 - registers the games
    import gymnasium as gym

    env = gym.make("PongNoFrameskip-v4")
    env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4, terminal_on_life_loss=True)
    return gym.wrappers.FrameStackObservation(env, 4)


def main() -> None:
    """Warm up, then take turns."""
    library, task, device = [*sys.argv[1:], "cpu"][:3]
    theirs = {"sb3": sb3, "tianshou": tianshou, "cleanrl": cleanrl}
    steps = rlrun(task, library, device) if library in OURS else theirs[library](task, device)
    for _ in range(WARM_UP[task]):
        next(steps)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(TURN[task] if device == "cpu" else GPU_TURN):
            next(steps)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
