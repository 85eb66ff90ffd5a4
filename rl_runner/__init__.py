"""rlrun: a command-line experiment runner for deep Q-learning and its relatives, and its Python API.

import rl_runner as rlrun

result = rlrun.train(["env=cartpole", "total_steps=20_000"])
agent = rlrun.load(result.run)
action = agent.act(obs)
"""

from typing import TYPE_CHECKING, Any

from rl_runner.version import __version__

if TYPE_CHECKING:
    from rl_runner.api import LoadedAgent, evaluate, load, train
    from rl_runner.results import EvalResult, TrainResult
    from rl_runner.types import UserError

__all__ = ["EvalResult", "LoadedAgent", "TrainResult", "UserError", "__version__", "evaluate", "load", "train"]

_HOMES = {
    **dict.fromkeys(("LoadedAgent", "evaluate", "load", "train"), "rl_runner.api"),
    **dict.fromkeys(("EvalResult", "TrainResult"), "rl_runner.results"),
    "UserError": "rl_runner.types",
}


if not TYPE_CHECKING:  # so that a name which does not exist is an error of types

    def __getattr__(name: str) -> Any:
        """Import what the API needs (torch, Hydra) when it is used: the command line's help answers without them."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
