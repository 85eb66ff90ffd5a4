"""Where Hydra looks for launchers and sweepers: in this package alone, which is shared with all who bring some."""

import importlib
import importlib.util
from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore

from rl_runner.launch.processes import Processes
from rl_runner.launch.search import Optuna


class RlrunProcesses(Processes):
    """rl_runner.launch.processes.Processes, under a name that Hydra accepts."""


class RlrunOptuna(Optuna):
    """rl_runner.launch.search.Optuna, likewise."""


@dataclass
class Conf:
    """The keys of hydra/launcher=processes."""

    _target_: str = "hydra_plugins.rlrun.RlrunProcesses"
    n_jobs: int = -1  # how many run at the same time; -1: as many as there are CPU cores


@dataclass
class OptunaConf:
    """The keys of hydra/sweeper=optuna."""

    _target_: str = "hydra_plugins.rlrun.RlrunOptuna"
    sampler: str = "tpe"  # tpe, cmaes, random or grid
    pruner: str = "none"  # none, median, halving or hyperband
    n_trials: int = 20  # how many there are in the end, those of other workers and earlier starts included
    n_jobs: int = 1  # trials that are launched together
    seeds: int = 1  # jobs of a trial, each with a seed of its own
    seed: int = 0  # of the sampler
    measure: str = "last"  # what a trial is judged by, the mean over its seeds: last, best or area
    warmup: int = 1  # evaluations after which a trial can be pruned
    startup: int = 5  # finished trials before the median pruner stops one
    params: dict[str, str] = field(default_factory=dict)  # keys to search, beside those of the command line
    trial: int | None = None  # of a job, set by the sweeper: the trial that it belongs to
    judged: bool = False  # of a job, likewise: its evaluations are those that the trial is judged by


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=Conf, provider="rlrun")
# hydra/launcher=slurm: submitit's, with what a run that resumes by itself can afford.
SLURM = {
    "defaults": ["submitit_slurm", "_self_"],
    "timeout_min": 240,  # of a job, which is then queued again: short enough for most queues
    "max_num_timeout": 1_000,  # how often; each time the run goes on where it was
    "signal_delay_s": 180,  # seconds before the time limit at which the run saves and stops
}

# hydra/launcher=ray: its own, with keys that also suit a cluster that runs already.
RAY = {
    "_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "ray": {
        "init": {
            "address": None,  # auto: a cluster there must be; HOST:PORT; local: this machine alone; null: auto or local
            "num_cpus": None,  # of this machine, without a cluster; null: all
            "num_gpus": None,  # likewise; null: all
            "object_store_memory": None,  # no job needs it, and a cluster that runs already refuses any value
            "log_to_driver": False,  # whether to show the output of all jobs; each has its train.log
        },
        "remote": {
            "num_cpus": 1,  # of a job
            "num_gpus": 0,  # of a job; 0.5: two share a GPU
            "max_retries": 3,  # how often a job whose process or machine died goes on by itself; -1: always
        },
    },
}

ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SLURM, provider="rlrun")
if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
    importlib.import_module("hydra_plugins.hydra_ray_launcher._config")  # stores its own; of two the later one counts
    ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RAY, provider="rlrun")
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConf, provider="rlrun")
