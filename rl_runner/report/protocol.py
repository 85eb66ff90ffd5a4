"""Keys of a configuration: which tell runs apart, which say how runs are measured."""

from __future__ import annotations

# What does not tell configurations apart: seeds, places, devices, and how often something is written.
IGNORED: tuple[str, ...] = (
    "seed",
    "name",
    "tags",
    "device",
    "num_threads",
    "resume",
    "trust",
    "init_from_optimizer",
    "eval.num_envs",
    "env.threads",
    "env.processes",
    "env.imports",
    "replay.frames",
    "optimizer.fused",
    "agent.compiled",
)
IGNORED_BELOW = ("log.", "checkpoint.", "tuned.", "logger.", "hydra.")
ENVIRONMENT: tuple[str, ...] = ("env.name", "env.id", "env.game", "env._target_", "env.returns")  # which one it is
PROTOCOL: tuple[str, ...] = (
    "env.sticky",
    "env.frame_skip",
    "env.max_frames",
    "env.max_steps",
    "env.noop_max",
    "env.fire_reset",
    "env.fire_each_life",
    "env.wrappers",
    "env.full_action_space",
    "eval.epsilon",
    "eval.episodes",
    "eval.every_steps",
    "total_steps",
    "stop.return",
    "stop.window",
    "stop.eval_return",
)
PROTOCOL_BELOW = ("env.kwargs.",)


def is_protocol(key: str) -> bool:
    """Return whether a key says how runs are measured, so that scores with different values are not comparable."""
    return key in PROTOCOL or key.startswith(PROTOCOL_BELOW)


def tells_apart(key: str) -> bool:
    """Return whether runs with different values of a key are runs of different configurations."""
    return not (key in (*IGNORED, *ENVIRONMENT) or key.startswith(IGNORED_BELOW))
