"""Services that keep results: Weights & Biases and MLflow. A run's own files are written in any case."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rl_runner.extras import package
from rl_runner.run.files import read_json, write_whole
from rl_runner.types import UserError, described

FILE = "logger.json"  # in the run's directory: which run of the service it is, and what was sent


class Logger(Protocol):
    """A service that keeps the numbers of runs. Nothing is sent before `start`. Every method may raise anything."""

    def start(self, run: Path, config: Mapping[str, object], tags: Sequence[str], id: str | None) -> str:
        """Open a run of the service; return its id.

        Args:
            run: the run's directory.
            config: the configuration by dotted keys.
            tags: the run's tags.
            id: of the run to continue; None: a new one.
        """
        ...

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send scalars at an environment step."""
        ...

    def close(self, finished: bool) -> None:
        """Send what waits, and note whether the run trained to its end."""
        ...


class WandB:
    """Weights & Biases. Curves are drawn over `steps`, so they are right after a resume too.

    Args:
        project: name of the project.
        entity: user or team; None: the account's default.
        group: name that runs are grouped by.
        mode: online, offline (`wandb sync` sends it later) or disabled; None: as WANDB_MODE says, or online.

    Raises:
        UserError: the package is missing.
    """

    def __init__(
        self, project: str = "rlrun", entity: str | None = None, group: str | None = None, mode: str | None = None
    ) -> None:
        if mode not in (None, "online", "offline", "disabled"):
            raise UserError(f"logger.mode: must be online, offline, disabled or null, got {mode!r}")
        self._wandb = package("wandb", "wandb", "logger")
        self._where: dict[str, Any] = {"project": project, "entity": entity, "group": group, "mode": mode}
        self._run: Any = None

    def start(self, run: Path, config: Mapping[str, object], tags: Sequence[str], id: str | None) -> str:
        """See `Logger`."""
        id = id or secrets.token_hex(4)
        self._run = self._wandb.init(
            **self._where,
            id=id,
            resume="allow",
            name=run.name,
            tags=list(tags),
            config=dict(config),
            allow_val_change=True,  # of the configuration, when the run is resumed
            dir=str(run),
            settings=self._wandb.Settings(silent=True, disable_git=True, console="off"),
        )
        self._run.define_metric("steps")
        self._run.define_metric("*", step_metric="steps")
        return id

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `Logger`."""
        self._run.log({**scalars, "steps": step})

    def close(self, finished: bool) -> None:
        """See `Logger`."""
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """MLflow.

    Args:
        experiment: name of the experiment; it is created if it is not there.
        tracking_uri: a server, a database or a directory; None: as MLFLOW_TRACKING_URI says, or MLflow's default.

    Raises:
        UserError: the package is missing.
    """

    def __init__(self, experiment: str = "rlrun", tracking_uri: str | None = None) -> None:
        self._mlflow = package("mlflow", "mlflow", "logger")
        self._experiment, self._uri, self._id = experiment, tracking_uri, ""
        self._client: Any = None

    def start(self, run: Path, config: Mapping[str, object], tags: Sequence[str], id: str | None) -> str:
        """See `Logger`."""
        if self._uri and ("://" not in self._uri or self._uri.startswith("file:")):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # or MLflow 3 refuses a directory
        self._client = client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        if id is None:
            known = client.get_experiment_by_name(self._experiment)
            experiment = known.experiment_id if known else client.create_experiment(self._experiment)
            named = {f"tag.{tag}": "true" for tag in tags}
            self._id = client.create_run(experiment, run_name=run.name, tags=named).info.run_id
            params = [self._mlflow.entities.Param(key, str(value)[:6000]) for key, value in config.items()]
            for first in range(0, len(params), 100):  # the most that one call takes
                client.log_batch(self._id, params=params[first : first + 100])
        else:
            self._id = id
            client.update_run(id, status="RUNNING")
        return self._id

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """See `Logger`."""
        now = int(1000 * time.time())
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, finished: bool) -> None:
        """See `Logger`."""
        self._client.set_terminated(self._id, status="FINISHED" if finished else "KILLED")


class Sender:
    """Sends a run's numbers to a service, each once: a resumed run does not repeat those that were sent before.

    A service that fails ends nothing: it is said once, and the run continues with its own files.

    Args:
        logger: the service.
        run: the run's directory.
        say: told what a user must know.
    """

    def __init__(self, logger: Logger, run: Path, say: Callable[[str], object] = print) -> None:
        self._logger, self._file, self._run, self.say = logger, run / FILE, run, say
        self._name = type(logger).__name__
        self._id, self._step, self._names = "", -1, set[str]()  # of the last row that was sent
        self._before: tuple[int, set[str]] = (-1, set())  # the same, of the processes before this one
        self._works = False

    def start(self, config: Mapping[str, object], tags: Sequence[str], resumed: bool) -> None:
        """Open a run of the service, or continue the one that this run had.

        Raises:
            UserError: a new run cannot be opened. A resumed run continues without the service.
        """
        known = self._known() if resumed else {}
        try:
            self._id = self._logger.start(self._run, config, tags, known.get("id"))
            if not isinstance(self._id, str):
                raise TypeError(f"{self._name}.start must return the id as a str, got {self._id!r}")
        except Exception as e:
            if not resumed:
                raise UserError(f"logger: {self._name} cannot be used: {described(e)}") from e
            self._failed(e)
            return
        self._works = True
        self._step, self._names = known.get("step", -1), set(known.get("names", []))
        self._before = (self._step, self._names)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of a step that were not sent yet."""
        sent, names = self._before
        new = {name: value for name, value in scalars.items() if step > sent or (step == sent and name not in names)}
        if not new or not self._works:
            return
        try:
            self._logger.write(step, new)
            self._names = {*new, *(self._names if step == self._step else ())}
            self._step = step
            self._remember()
        except Exception as e:
            self._failed(e)

    def close(self, finished: bool) -> None:
        """Send what waits."""
        if self._works:
            try:
                self._logger.close(finished)
            except Exception as e:
                self.say(f"logger: {self._name} failed at the end ({described(e)}); it may lack the last numbers")

    def _known(self) -> dict[str, Any]:
        try:
            known = read_json(self._file)
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) and known.get("service") == self._name else {}

    def _remember(self) -> None:
        known = {"service": self._name, "id": self._id, "step": self._step, "names": sorted(self._names)}
        write_whole(self._file, json.dumps(known))

    def _failed(self, e: Exception) -> None:
        self._works = False
        self.say(f"logger: {self._name} failed ({described(e)}); the run continues without it")
