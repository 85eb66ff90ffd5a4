"""Where Hydra looks for launchers: in this package alone, which is shared with all who bring some."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore

from rl_runner.launch.processes import Processes


class RlrunProcesses(Processes):
    """rl_runner.launch.processes.Processes, under a name that Hydra accepts."""


@dataclass
class Conf:
    """The keys of hydra/launcher=processes."""

    _target_: str = "hydra_plugins.rlrun.RlrunProcesses"
    n_jobs: int = -1  # how many run at the same time; -1: as many as there are CPU cores


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=Conf, provider="rlrun")
