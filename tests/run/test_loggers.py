"""What a service gets: each number of metrics.csv once, whatever happens to the run or to the service."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rl_runner.loops.replay import ReplayLoop
from rl_runner.run.loggers import FILE, MLflow, Sender, WandB
from rl_runner.types import UserError
from tests.commandline import SHORT, refused, rlrun

MINE = '''
"""A service that writes what it gets to a file."""
import json

class Service:
    def start(self, run, config, tags, id):
        assert config["env.name"] == "cartpole"
        assert not any(key.startswith("logger.") for key in config)  # it may hold a password
        self.file = open("sent.jsonl", "a")
        self.note("start", id, list(tags))
        return id or "first"

    def write(self, step, scalars):
        self.note(step, dict(scalars))

    def close(self, finished):
        self.note("close", finished)
        self.file.close()

    def note(self, *what):
        self.file.write(json.dumps(what) + "\\n")
        self.file.flush()
'''


class Service:
    """Notes what it gets; raises what it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.rows, self.started, self.closed = fails, list[tuple[int, dict[str, float]]](), [], []

    def start(self, run: Path, config: Mapping[str, object], tags: Sequence[str], id: str | None) -> str:
        self.started.append(id)
        return self._unless("start") or id or "new"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._unless("write")
        self.rows.append((step, dict(scalars)))

    def close(self, finished: bool) -> None:
        self.closed.append(finished)
        self._unless("close")

    def _unless(self, place: str) -> str:
        if self.fails == place:
            raise ConnectionError("no network\nat all")
        return ""


def sender(service: Service, run: Path, resumed: bool = False, say: Any = print) -> Sender:
    made = Sender(service, run, say)
    made.start({}, [], resumed)
    return made


def test_rows_that_were_sent_before_a_resume_are_not_sent_again(tmp_path: Path) -> None:
    first, second = Service(), Service()
    before = sender(first, tmp_path)
    for step, scalars in [(1, {"a": 1.0}), (2, {"a": 2.0}), (2, {"b": 2.5})]:
        before.write(step, scalars)
    after = sender(second, tmp_path, resumed=True)  # from a checkpoint at step 1: what follows is done again
    for step, scalars in [(2, {"a": 2.0}), (2, {"b": 2.5, "c": 9.0}), (3, {"a": 3.0}), (3, {"b": 3.5})]:
        after.write(step, scalars)
    assert first.rows == [(1, {"a": 1.0}), (2, {"a": 2.0}), (2, {"b": 2.5})]
    assert second.rows == [(2, {"c": 9.0}), (3, {"a": 3.0}), (3, {"b": 3.5})]
    assert (first.started, second.started) == ([None], ["new"])


def test_a_new_run_of_another_service_has_an_id_of_its_own(tmp_path: Path) -> None:
    sender(Service(), tmp_path).write(5, {"a": 1.0})

    class Other(Service):
        pass

    other = Other()
    sender(other, tmp_path, resumed=True).write(5, {"a": 1.0})
    assert other.started == [None]
    assert other.rows == [(5, {"a": 1.0})]


@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_service_that_fails_is_named_once_and_ends_nothing(fails: str, tmp_path: Path) -> None:
    said: list[str] = []
    service = Service(fails)
    made = sender(service, tmp_path, say=said.append)
    for step in range(3):
        made.write(step, {"a": 1.0})
    made.close(finished=True)
    failed = {
        "write": "failed (ConnectionError: no network at all); the run continues without it",
        "close": "failed at the end (ConnectionError: no network at all); it may lack the last numbers",
    }
    assert said == [f"logger: Service {failed[fails]}"]


def test_a_service_without_an_id_is_refused(tmp_path: Path) -> None:
    class Nameless(Service):
        def start(self, *args: Any) -> None:  # type: ignore[override]
            return None

    line = r"^logger: Nameless cannot be used: TypeError: Nameless\.start must return the id as a str, got None$"
    with pytest.raises(UserError, match=line):
        sender(Nameless(), tmp_path)


def test_a_new_run_is_refused_without_its_service_and_a_resumed_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="logger: Service cannot be used: ConnectionError: no network at all"):
        sender(Service("start"), tmp_path)
    said: list[str] = []
    resumed = sender(Service("start"), tmp_path, resumed=True, say=said.append)
    resumed.write(1, {"a": 1.0})
    resumed.close(finished=True)
    assert len(said) == 1


def test_a_file_that_is_damaged_begins_a_new_run_of_the_service(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    service = Service()
    sender(service, tmp_path, resumed=True)
    assert service.started == [None]


@pytest.mark.parametrize(("option", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_missing_package_names_its_extra(
    option: str, package: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = refused("train", f"logger={option}", *SHORT)
    assert line == f"rlrun: logger: needs {package}, which is not installed: pip install 'rlrun[{package}]'"


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(UserError, match=r"logger\.mode: must be online, offline, disabled or null, got 'of'"):
        WandB(mode="of")


def test_a_run_that_dies_and_is_resumed_sends_what_its_table_holds(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "mine.py").write_text(MINE)
    words = [*SHORT, "total_steps=60", "log.every_steps=10", "eval.every_steps=20", "checkpoint.every_steps=20"]
    words += ["logger._target_=mine.Service", "tags=[x]", "hydra.run.dir=run"]
    step = ReplayLoop.step

    def dies(loop: ReplayLoop) -> None:
        if loop.clock.steps >= 37:
            raise MemoryError("the machine is gone")
        step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayLoop, "step", dies)
        assert rlrun("train", *words).code == 1
    done = rlrun("train", "resume=run")
    assert done.code == 0, done
    notes = [json.loads(line) for line in Path("sent.jsonl").read_text().splitlines()]
    assert notes[0] == ["start", None, ["x"]]
    assert [note for note in notes if note[0] in ("start", "close")][1:] == [
        ["close", False],
        ["start", "first", ["x"]],
        ["close", True],
    ]
    sent = [(note[0], *item) for note in notes if isinstance(note[0], int) for item in note[1].items()]
    table = [line.split(",") for line in Path("run/metrics.csv").read_text().splitlines()[1:]]
    expected = [(int(row[0]), row[1], float(row[2])) for row in table]
    assert len(sent) == len(set(sent)) > 40

    def untimed(rows: Any) -> list[Any]:  # NaN is a value like others
        return [(s, n, repr(float(v))) for s, n, v in rows if not n.startswith("time/")]

    assert untimed(sent) == untimed(expected)

    assert rlrun("train", "resume=run", "total_steps=70", "logger=none").code == 0
    assert len(Path("sent.jsonl").read_text().splitlines()) == len(notes)


def records(data: bytes) -> list[bytes]:
    """Return the records of a file in LevelDB's log format: pieces of (crc 4, length 2, type 1) in blocks of 32 KB."""
    found, whole, at = [], b"", 7  # after W&B's own header
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:  # the rest of a block that no piece fits in
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            found.append(whole)
            whole = b""
    return found


def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for resumed in (False, True):
        made = Sender(WandB(mode="offline"), tmp_path)
        made.start({"optimizer.lr": 1e-3}, ["x"], resumed)
        for step in (10, 20, 30) if resumed else (10, 20):
            made.write(step, {"train/return": step / 10})
        made.close(finished=True)
    wanted = [(10, 1.0), (20, 2.0), (30, 3.0)]
    for _ in range(100):  # another process writes the end of the file
        rows, ids = [], set()
        for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
            for data in records(file.read_bytes()):
                record = Record.FromString(data)
                if record.run.run_id:
                    ids.add(record.run.run_id)
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                rows += [(items["steps"], items["train/return"])] if "steps" in items else []
        if len(rows) >= len(wanted):
            break
        time.sleep(0.1)
    assert (rows, len(ids)) == (wanted, 1)


def test_mlflow_file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # so that it is as before when the test ends
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    uri = str(tmp_path / "store")
    for resumed in (False, True):
        made = Sender(MLflow(tracking_uri=uri), tmp_path)
        made.start({f"key{i}": i for i in range(150)}, ["x"], resumed)
        for step in (10, 20, 30) if resumed else (10, 20):
            made.write(step, {"train/return": step / 10})
        made.close(finished=resumed)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("rlrun").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/return")
    assert [(m.step, m.value) for m in history] == [(10, 1.0), (20, 2.0), (30, 3.0)]
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 150
