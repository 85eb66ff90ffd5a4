"""Measure how much each step of variance reduction reduces the variance of REINFORCE's gradient.

    python scripts/gradient_variance.py --episodes 2000     # writes outputs/published/gradient_variance.csv

One policy, of a run of REINFORCE that is stopped early, plays episodes without learning. For each variant the gradient
of every single episode is computed; the table shows the variance (trace of the covariance matrix, each gradient a sum
over its episode), and the same divided by the squared norm of the mean gradient: noise to signal. That norm is
estimated without bias. The value is fitted to half of the episodes before, and the other half is measured.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import torch

from rl_runner.agents.reinforce import REINFORCE
from rl_runner.build import jobs, saved
from rl_runner.launch import tuned
from rl_runner.rollouts import rows_of
from rl_runner.run.directory import RunDirectory
from rl_runner.types import Rollout

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = [
    ("trajectory", "none"),
    ("to_go", "none"),
    ("discounted", "none"),
    ("discounted", "mean"),
    ("discounted", "value"),
]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=3_000, help="of training before")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "published" / "gradient_variance.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cfg = saved.plain(tuned.compose(["agent=reinforce", "env=cartpole", "num_threads=1"]))
    with tempfile.TemporaryDirectory() as run:
        loop: Any = jobs.train_job(cfg, RunDirectory(Path(run))).loop
    while loop.clock.steps < given.steps or loop.rollout:
        loop.step()
    agent = loop.agent
    rollouts: list[Rollout] = []

    def keep(rollout: Rollout, step: int) -> tuple[()]:
        rollouts.append(rollout)
        return ()

    agent.learn = keep
    while len(rollouts) < given.episodes:
        loop.step()
    half = len(rollouts) // 2
    fit(agent, rollouts[:half])
    rollouts = rollouts[half:]
    rows: list[dict[str, Any]] = []
    for returns, baseline in VARIANTS:
        variance, noise = measure(agent, rollouts, returns, baseline)
        rows.append({"returns": returns, "baseline": baseline, "variance": variance, "noise_to_signal": noise})
        print(f"{returns:12}{baseline:8}{variance:14.4g}{noise:12.4g}", flush=True)
    with open(given.out, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {given.out}")


def fit(agent: REINFORCE, rollouts: list[Rollout], steps: int = 2_000) -> None:
    """Fit the state value to discounted returns."""
    network = agent.network
    with torch.no_grad():
        obs = torch.cat([rows_of(r, agent.device).obs for r in rollouts])
        target = torch.cat([agent._returns(r, network.value(rows_of(r, agent.device).obs))[0] for r in rollouts])
    optimizer = torch.optim.Adam([p for name, p in network.named_parameters() if name.startswith("value")], lr=3e-3)
    for _ in range(steps):
        index = torch.randint(len(obs), (256,))
        optimizer.zero_grad()
        (network.value(obs[index]) - target[index]).square().mean().backward()
        optimizer.step()


def measure(agent: REINFORCE, rollouts: list[Rollout], returns: str, baseline: str) -> tuple[float, float]:
    """Return the variance of the policy's gradient, and that divided by the squared norm of its mean."""
    agent.returns, agent.baseline = returns, baseline
    network = agent.network
    policy = [p for module in (network.torso, network.hidden, network.policy_out) for p in module.parameters()]
    with torch.no_grad():  # the mean is that over all episodes, as a rollout of many would have it
        credits = [agent._returns(r, network.value(rows_of(r, agent.device).obs))[0] for r in rollouts]
    mean = torch.cat(credits).mean()
    gradients = []
    for rollout, credit in zip(rollouts, credits, strict=True):
        log_prob, _, value = agent.evaluate(rows_of(rollout, agent.device))
        subtracted = {"none": torch.zeros(()), "mean": mean, "value": value.detach()}[baseline]
        loss = -(log_prob * (credit - subtracted)).sum()
        gradients.append(torch.cat([g.ravel() for g in torch.autograd.grad(loss, policy)]))
    all_of_them = torch.stack(gradients).double()
    variance = all_of_them.var(dim=0).sum()
    signal = all_of_them.mean(dim=0).square().sum() - variance / len(gradients)
    return float(variance), float(variance / signal)


if __name__ == "__main__":
    main()
