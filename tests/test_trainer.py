"""The shell round a loop: everything happens when the plan says, and the best agent is kept."""

import contextlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rl_runner.evaluation import Evaluation
from rl_runner.run.best import BestAgent, evaluation_scalars
from rl_runner.run.checkpoint import Checkpoints, about, load
from rl_runner.run.metrics import MetricsLog
from rl_runner.run.plan import Plan
from rl_runner.run.progress import Progress
from rl_runner.run.records import EpisodeRecords
from rl_runner.schedules import Every
from rl_runner.trainer import Trainer
from rl_runner.types import Clock, Episode


@pytest.fixture(autouse=True)
def _logs_are_closed(monkeypatch):
    opened = []
    for kind in (MetricsLog, EpisodeRecords):

        class Closed(kind):
            def __init__(self, *args):
                super().__init__(*args)
                opened.append(self)

        monkeypatch.setitem(globals(), kind.__name__, Closed)
    yield
    for log in opened:
        log.close()


class CountingAgent:
    def __init__(self):
        self.version = 0

    def state_dict(self):
        return {"version": self.version, "optimizer": np.zeros(3)}

    def weights(self):
        return {"version": self.version}

    def load_weights(self, state):
        self.version = state["version"]


class Envs:
    frame_skip = None
    finished: list[Episode]


class FakeLoop:
    """Takes 3 steps at a time; every second time an episode ends, whose return is the number of the step."""

    last = 10**9  # steps after which nothing is left to learn

    def __init__(self):
        self.clock, self.agent, self.envs = Clock(), CountingAgent(), Envs()
        self.envs.finished = []

    @property
    def done(self):
        return self.clock.steps >= self.last

    def scalars(self):
        return {"learn/updates": self.clock.updates, "explore/epsilon": 1 / (1 + self.clock.steps)}

    def step(self):
        ended = (self.clock.steps // 3) % 2 == 1
        self.clock = self.clock.plus(steps=3, updates=1, episodes=int(ended))
        self.agent.version = self.clock.steps
        self.envs.finished = [Episode(0, 0, float(self.clock.steps), 6, [])] if ended else []

    def state_dict(self):
        return {"agent": self.agent.state_dict(), "clock": vars(self.clock), "replay": {"rows": np.arange(3)}}

    def load_state_dict(self, state):
        self.clock = Clock(**state["clock"])
        self.agent.version = state["agent"]["version"]


class Said:
    def __init__(self):
        self.lines = []

    def advance(self, clock, returns):
        pass

    def pause(self, doing):
        return contextlib.nullcontext()

    def update(self, clock, scalars):
        self.lines.append((clock.steps, scalars))

    def say(self, line):
        self.lines.append(line)


def evaluation_of(score):
    return Evaluation([Episode(0, 7, score - 1, 10, []), Episode(0, 8, score + 1, 10, [])])


def make(tmp_path: Path, scores=None, stopped=lambda: False, **plan):
    never = dict.fromkeys(("evaluate", "checkpoint", "snapshot"), Every(0))
    everything = {"total_steps": 30, "log": Every(9), **never, **plan}
    loop, evaluated = FakeLoop(), []

    def evaluation(step):
        evaluated.append(step)
        return evaluation_of(scores[step] if scores else 0.0)

    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=10)
    log, records = MetricsLog(tmp_path), EpisodeRecords(tmp_path)
    trainer = Trainer(loop, evaluation, checkpoints, log, records, Said(), Plan(**everything), stopped)
    return trainer, checkpoints, evaluated


def scalars(tmp_path, name):
    lines = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    return {int(s): float(v) for s, n, v in (line.split(",") for line in lines) if n == name}


def test_logs_evaluates_and_checkpoints_at_the_multiples_that_are_crossed(tmp_path):
    trainer, checkpoints, evaluated = make(tmp_path, evaluate=Every(10), checkpoint=Every(8))
    trainer.run()
    assert sorted(scalars(tmp_path, "learn/updates")) == [9, 18, 27, 30]  # and what is left at the end
    assert evaluated == [12, 21, 30]  # the first steps at or past 10, 20, 30
    assert sorted(int(p.name[5:]) for p in checkpoints.newest()) == [9, 18, 24, 30]


def test_episode_means_are_those_of_the_interval(tmp_path):
    trainer, *_ = make(tmp_path)
    trainer.run()
    # Episodes end at steps 6, 12, 18, 24, 30 and return those numbers.
    assert scalars(tmp_path, "train/return") == {9: 6.0, 18: 15.0, 27: 24.0, 30: 30.0}
    assert scalars(tmp_path, "train/return_last_100") == {9: 6.0, 18: 12.0, 27: 15.0, 30: 18.0}
    assert scalars(tmp_path, "train/length") == {9: 6.0, 18: 6.0, 27: 6.0, 30: 6.0}
    assert scalars(tmp_path, "explore/epsilon")[9] == 0.1


def test_every_episode_has_a_row(tmp_path):
    trainer, *_ = make(tmp_path, {9: 1.0, 18: 5.5, 27: 2.0, 30: 5.0}, evaluate=Every(9))
    trainer.run()
    rows = (tmp_path / "episodes.csv").read_text().splitlines()
    assert rows == ["step,seed,return,length", *(f"{step},0,{step}.0,6" for step in (6, 12, 18, 24, 30))]
    assert evaluated_episodes(tmp_path) == [
        *[(9, 7, 0.0), (9, 8, 2.0), (18, 7, 4.5), (18, 8, 6.5)],
        *[(27, 7, 1.0), (27, 8, 3.0), (30, 7, 4.0), (30, 8, 6.0)],
    ]


def evaluated_episodes(tmp_path):
    rows = map(json.loads, (tmp_path / "evaluations.jsonl").read_text().splitlines())
    return [(row["step"], row["seed"], row["return"]) for row in rows]


def test_snapshots_hold_weights_alone(tmp_path):
    trainer, checkpoints, _ = make(tmp_path, snapshot=Every(10))
    trainer.run()
    snapshots = tmp_path / "checkpoints" / "snapshots"
    assert sorted(p.name for p in snapshots.iterdir()) == ["12", "21", "30"]
    assert load(snapshots / "21") == {"agent": {"version": 21}}
    assert (about(snapshots / "21")["steps"], about(snapshots / "21")["weights_only"]) == (21, True)
    assert checkpoints.find("21") == snapshots / "21"
    assert checkpoints.find("30").name == "step_000000030"  # the whole one
    assert checkpoints.find("last").name == "step_000000030"


def test_an_agent_that_does_not_tell_its_weights_is_kept_whole(tmp_path):
    class Plain:
        def state_dict(self):
            return {"version": 0, "optimizer": np.zeros(3)}

    trainer, *_ = make(tmp_path, snapshot=Every(10))
    trainer.loop.agent = Plain()
    trainer.run()
    snapshot = tmp_path / "checkpoints" / "snapshots" / "21"
    assert load(snapshot)["agent"].keys() == {"version", "optimizer"}
    assert not about(snapshot)["weights_only"]


def test_the_best_agent_is_kept_and_a_later_equal_one_replaces_it(tmp_path):
    scores = {9: 1.0, 18: 5.0, 27: 2.0, 30: 5.0}
    trainer, checkpoints, _ = make(tmp_path, scores, evaluate=Every(9), total_steps=27)
    trainer.run()
    best = checkpoints.find("best")
    assert (best.name, about(best)["steps"], about(best)["return"]["mean"]) == ("best_000000018", 18, 5.0)
    (tmp_path / "longer").mkdir()
    trainer, checkpoints, _ = make(tmp_path / "longer", scores, evaluate=Every(9))
    trainer.run()
    assert checkpoints.find("best").name == "best_000000030"


def test_stops_when_the_mean_of_the_window_reaches_the_goal(tmp_path):
    # The mean of the last two returns: 9 after step 12, 15 after step 18, 21 after step 24.
    trainer, *_ = make(tmp_path, stop_return=15.0, stop_window=2)
    trainer.run()
    assert trainer.solved
    assert trainer.loop.clock.steps == 18


def test_does_not_stop_before_the_window_is_full(tmp_path):
    trainer, *_ = make(tmp_path, stop_return=1.0, stop_window=6)
    trainer.run()
    assert not trainer.solved
    assert trainer.loop.clock.steps == 30


def test_stops_when_nothing_is_left_to_learn_and_evaluates_what_was_learned(tmp_path):
    trainer, checkpoints, evaluated = make(tmp_path)
    trainer.loop.last = 12
    trainer.run()
    assert trainer.loop.clock.steps == 12
    assert not trainer.solved
    assert evaluated == [12]
    assert [p.name for p in checkpoints.newest()] == ["step_000000012"]


def test_stops_when_an_evaluation_reaches_the_goal(tmp_path):
    scores = {9: 1.0, 18: 5.0, 27: 9.0}
    trainer, _, evaluated = make(tmp_path, scores, evaluate=Every(9), stop_eval_return=5.0)
    trainer.run()
    assert trainer.solved
    assert (trainer.loop.clock.steps, evaluated) == (18, [9, 18])


def test_diagnostics_are_written_with_the_scalars(tmp_path):
    trainer, *_ = make(tmp_path)
    trainer.diagnostics = lambda: {"exact/error": 0.25 * trainer.loop.clock.steps}
    trainer.run()
    assert scalars(tmp_path, "exact/error") == {9: 2.25, 18: 4.5, 27: 6.75, 30: 7.5}


def test_asked_to_stop_it_saves_after_the_step_and_evaluates_no_more(tmp_path):
    trainer, checkpoints, evaluated = make(tmp_path, stopped=lambda: trainer.loop.clock.steps >= 12)
    trainer.run()
    assert [p.name for p in checkpoints.newest()] == ["step_000000012"]
    assert evaluated == []


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, monkeypatch):
    trainer, checkpoints, _ = make(tmp_path, checkpoint=Every(9), evaluate=Every(9), snapshot=Every(9))

    def full(*_):
        raise OSError(28, "No space left on device")

    for kind in ("save", "save_best", "save_snapshot"):
        monkeypatch.setattr(checkpoints, kind, full)
    trainer.run()
    assert trainer.loop.clock.steps == 30
    said = [line for line in trainer.terminal.lines if isinstance(line, str)]
    for what in ("checkpoint", "best agent", "snapshot"):
        assert f"step 9: the {what} cannot be saved (No space left on device); the run goes on" in said


def test_checkpoints_leave_the_replay_out_when_told_so(tmp_path):
    trainer, checkpoints, _ = make(tmp_path, keep_replay=False)
    trainer.run()
    assert load(checkpoints.find("last"))["replay"] is None


@pytest.mark.parametrize("total_steps", [30, 31])
def test_never_stops_short_of_its_steps(tmp_path, total_steps):
    trainer, *_ = make(tmp_path, total_steps=total_steps)
    trainer.run()
    assert total_steps <= trainer.loop.clock.steps < total_steps + 3


def test_a_resumed_run_is_credited_with_its_own_steps_alone(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rl_runner.trainer.time.perf_counter", lambda: now[0])
    before, *_ = make(tmp_path)
    before.loop.clock = Clock(steps=600)
    log = MetricsLog(tmp_path)
    resumed = Trainer(
        before.loop, before.evaluation, before.saver.checkpoints, log, before.records, Said(), before.plan
    )
    resumed.load_state_dict({**before.state_dict(), "logged": vars(Clock(steps=500))})
    resumed.loop.step()
    now[0] += 2.0
    resumed.write_scalars()
    assert scalars(tmp_path, "time/steps_per_s") == {603: 1.5}


def test_steps_per_second_leave_out_what_diagnostics_take(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rl_runner.trainer.time.perf_counter", lambda: now[0])

    def diagnostics() -> dict[str, float]:
        now[0] += 50.0
        return {"exact/value": 1.0}

    trainer, *_ = make(tmp_path)
    trainer.diagnostics = diagnostics
    for _ in range(2):
        trainer.loop.step()
        now[0] += 2.0
        trainer.write_scalars()
    assert scalars(tmp_path, "time/steps_per_s") == {3: 1.5, 6: 1.5}


# The best agent, over resumes. Scores are by step; steps are multiples of 3, evaluations are at 9, 18, 27 and the end.


class Crash(Exception):
    """The machine is gone."""


def train(tmp_path, scores, crash_at=None, resume=None, **plan):
    """Run a trainer; `resume` names the checkpoint that it goes on from."""
    tmp_path.mkdir(exist_ok=True)
    state = load(tmp_path / "checkpoints" / resume) if resume else None
    plan = {"evaluate": Every(9), **plan}
    trainer, *_ = make(tmp_path / "unused" if resume else tmp_path, scores, **plan)
    if state:
        trainer.loop.load_state_dict(state)
        trainer.saver.checkpoints = Checkpoints(tmp_path / "checkpoints", keep=10)
        trainer.best = BestAgent(trainer.saver.checkpoints, trainer.terminal.say)
        files, step = state["trainer"]["files"], trainer.loop.clock.steps
        trainer.log, trainer.records = MetricsLog(tmp_path, files, step), EpisodeRecords(tmp_path, files, step)
        trainer.load_state_dict(state["trainer"])
    step = trainer.loop.step

    def crashing_step():
        if trainer.loop.clock.steps == crash_at:
            raise Crash
        step()

    trainer.loop.step = crashing_step
    if crash_at is None:
        trainer.run()
    else:
        with pytest.raises(Crash):
            trainer.run()
    return trainer


def best_of(tmp_path):
    """What stands in checkpoints/best: step and score, and the version of the agent, which is the step as well."""
    best = tmp_path / "checkpoints" / "best"
    assert load(best)["agent"]["version"] == about(best)["steps"]
    return about(best)["steps"], about(best)["return"]["mean"]


def table(tmp_path):
    lines = [line for line in (tmp_path / "metrics.csv").read_text().splitlines() if ",time/" not in line]
    return lines + [(tmp_path / name).read_text() for name in ("episodes.csv", "evaluations.jsonl")]


def assert_same_run(a, b, trainer_a, trainer_b):
    assert table(a) == table(b)
    assert best_of(a) == best_of(b)
    for trainer, run in ((trainer_a, a), (trainer_b, b)):
        assert (trainer.best.step, trainer.best.score) == best_of(run)


@pytest.mark.parametrize("closing", [9.0, 5.0, 2.0])
def test_the_best_agent_of_a_finished_run_stays_when_it_is_made_longer(tmp_path, closing):
    """But the longer run's curve is that of a run that was begun with its length."""
    scores = {9: 1.0, 18: 2.0, 21: closing, 27: 5.0, 30: 4.0}
    train(tmp_path, scores, total_steps=21)
    assert best_of(tmp_path) == (21, closing)
    trainer = train(tmp_path, scores, resume="latest", total_steps=30)
    best = (21, 9.0) if closing == 9.0 else (27, 5.0)
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == best
    del scores[21]
    assert list(scalars(tmp_path, "eval/return_mean").items()) == list(scores.items())
    trainer = train(tmp_path, {33: 3.0, 36: 3.0}, resume="latest", total_steps=33)
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == best


def test_a_closing_evaluation_that_was_not_the_best_leaves_no_row_in_the_longer_run(tmp_path):
    scores = {9: 3.0, 18: 2.0, 21: 1.0, 27: 5.0, 30: 4.0}
    train(tmp_path / "a", scores, total_steps=21)
    resumed = train(tmp_path / "a", scores, resume="latest")
    assert_same_run(tmp_path / "a", tmp_path / "b", resumed, train(tmp_path / "b", scores))


def test_resuming_a_finished_run_as_it_is_changes_nothing(tmp_path):
    scores = {9: 1.0, 18: 2.0, 27: 3.0, 30: 4.0}
    first = train(tmp_path / "a", scores)
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True)
    assert_same_run(tmp_path / "a", tmp_path / "b", first, train(tmp_path / "b", scores, resume="latest"))


@pytest.mark.parametrize("scores", [{9: 1.0, 18: 5.0, 27: 9.0, 30: 2.0}, {9: 1.0, 18: 5.0, 27: 2.0, 30: 7.0}])
@pytest.mark.parametrize("again_at", [18, 21, 27])
def test_after_a_crash_the_same_evaluations_are_made_once(tmp_path, scores, again_at):
    """The run crashes after 27, with one checkpoint at 15; resumed, it crashes again, before or after the best."""
    whole = train(tmp_path / "whole", scores, checkpoint=Every(15))
    train(tmp_path / "run", scores, crash_at=27, checkpoint=Every(15))
    best = best_of(tmp_path / "run")
    train(tmp_path / "run", scores, crash_at=again_at, resume="step_000000015", checkpoint=Every(15))
    assert best_of(tmp_path / "run") == best  # not the one of 18 for that of 27
    resumed = train(tmp_path / "run", scores, resume="latest", checkpoint=Every(15))
    assert_same_run(tmp_path / "whole", tmp_path / "run", whole, resumed)


def test_what_the_best_agent_scored_stays_if_the_replay_gives_another_number(tmp_path):
    """As without the replay memory. The agent at 27 is another one then; the curve is that of the resumed run."""
    train(tmp_path, {9: 1.0, 18: 5.0, 27: 9.0}, crash_at=27, checkpoint=Every(15))
    trainer = train(tmp_path, {9: 1.0, 18: 6.0, 27: 7.0, 30: 8.0}, resume="step_000000015")
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (27, 9.0)
    rows = [line for line in table(tmp_path) if "eval/return_mean" in line]
    assert [row.replace(",eval/return_mean,", " ") for row in rows] == ["9 1.0", "18 6.0", "27 7.0", "30 8.0"]
    assert [row for row in evaluated_episodes(tmp_path) if row[0] == 27] == [(27, 7, 6.0), (27, 8, 8.0)]


def test_a_better_agent_of_the_replay_takes_its_place(tmp_path):
    train(tmp_path, {9: 1.0, 18: 5.0, 27: 9.0}, crash_at=27, checkpoint=Every(15))
    trainer = train(tmp_path, {9: 1.0, 18: 10.0, 27: 7.0, 30: 8.0}, resume="step_000000015")
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (18, 10.0)
    assert scalars(tmp_path, "eval/return_mean") == {9: 1.0, 18: 10.0, 27: 7.0, 30: 8.0}


@pytest.mark.parametrize("plan", [{"evaluate": Every(0)}, {"total_steps": 18}, {"total_steps": 15}])
def test_the_best_agent_stays_if_its_step_is_not_evaluated_again(tmp_path, plan):
    train(tmp_path, {9: 1.0, 18: 2.0, 27: 9.0}, crash_at=27, checkpoint=Every(15))
    trainer = train(tmp_path, {15: 3.0, 18: 2.0, 30: 8.0}, resume="step_000000015", **plan)
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (27, 9.0)
    assert 27 not in scalars(tmp_path, "eval/return_mean")
    assert 27 not in [step for step, *_ in evaluated_episodes(tmp_path)]


def test_an_interrupted_replay_shows_the_best_agent_and_finds_it_again(tmp_path):
    scores = {9: 1.0, 18: 5.0, 27: 9.0, 30: 2.0}
    whole = train(tmp_path / "whole", scores)
    train(tmp_path / "run", scores, crash_at=27, checkpoint=Every(15))
    trainer = train(tmp_path / "run", scores, resume="latest", stopped=lambda: True)
    assert (trainer.best.step, trainer.best.score) == best_of(tmp_path / "run") == (27, 9.0)
    assert_same_run(
        tmp_path / "whole", tmp_path / "run", whole, train(tmp_path / "run", scores, resume="step_000000015")
    )


def test_a_finished_run_that_is_resumed_needs_no_room(tmp_path, monkeypatch):
    scores = {9: 1.0, 18: 2.0, 27: 3.0, 30: 4.0}
    train(tmp_path, scores)
    before = table(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rl_runner.run.checkpoint.save", full)
    trainer = train(tmp_path, scores, resume="latest")
    assert table(tmp_path) == before
    assert trainer.saver.saved == trainer.loop.clock
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (30, 4.0)


def test_a_crash_after_the_evaluation_that_solves_it_ends_at_the_same_step(tmp_path):
    scores = {9: 1.0, 18: 9.0}
    plan = {"stop_eval_return": 9.0, "checkpoint": Every(12)}
    whole = train(tmp_path / "whole", scores, **plan)
    assert whole.loop.clock.steps == 18
    train(tmp_path / "run", scores, **plan)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_000000018")
    resumed = train(tmp_path / "run", scores, resume="step_000000012", **plan)
    assert resumed.loop.clock.steps == 18
    assert_same_run(tmp_path / "whole", tmp_path / "run", whole, resumed)


def test_a_run_that_its_closing_evaluation_solved_is_solved(tmp_path):
    train(tmp_path, {9: 1.0, 12: 9.0}, total_steps=12, stop_eval_return=9.0)
    assert train(tmp_path, {12: 9.0}, resume="latest", stop_eval_return=9.0).loop.clock.steps == 12


def test_a_best_agent_that_is_gone_is_not_waited_for(tmp_path):
    scores = {9: 9.0, 18: 5.0, 27: 2.0, 30: 1.0}
    train(tmp_path, scores, crash_at=15, checkpoint=Every(12))
    (tmp_path / "checkpoints/best_000000009/agent.npz").write_bytes(b"")
    trainer = train(tmp_path, scores, resume="latest")
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (18, 5.0)
    assert (
        "the best agent, of step 9, is missing or damaged; the next evaluation is the best so far"
        in trainer.terminal.lines
    )


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_evaluation_that_is_no_number_is_never_the_best(tmp_path, odd):
    trainer = train(tmp_path, {9: odd, 18: 1.0, 27: odd, 30: odd}, stop_eval_return=100.0)
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (18, 1.0)
    assert trainer.loop.clock.steps == 30


def test_a_remembered_best_that_is_no_number_is_forgotten(tmp_path):
    trainer, *_ = make(tmp_path, {9: 1.0, 18: 0.5, 27: 0.5, 30: 0.5}, evaluate=Every(9))
    trainer.load_state_dict({**trainer.state_dict(), "best": math.nan, "best_step": 6})
    trainer.run()
    assert best_of(tmp_path) == (9, 1.0)


def test_an_agent_that_cannot_be_saved_is_not_the_best(tmp_path, monkeypatch):
    trainer, checkpoints, _ = make(tmp_path, {9: 1.0, 18: 9.0, 27: 5.0, 30: 2.0}, evaluate=Every(9))
    save_best = checkpoints.save_best

    def full_at_18(step, *state):
        if step == 18:
            raise OSError(28, "No space left on device")
        save_best(step, *state)

    monkeypatch.setattr(checkpoints, "save_best", full_at_18)
    trainer.run()
    assert best_of(tmp_path) == (trainer.best.step, trainer.best.score) == (27, 5.0)


def test_frames_are_steps_times_the_frame_skip(tmp_path):
    trainer, *_ = make(tmp_path, total_steps=9)
    trainer.loop.envs.frame_skip = 4
    trainer.run()
    assert scalars(tmp_path, "train/frames") == {9: 36.0}


def test_numbers_that_environments_report_are_averaged_over_episodes():
    progress, resumed = Progress(100, Clock()), Progress(100, Clock())
    progress.add([Episode(0, 0, 1.0, 6, [], info={"success": 1.0})])
    resumed.load_state_dict(progress.state_dict(), Clock())
    for p in (progress, resumed):
        p.add([Episode(0, 0, 1.0, 6, [], info={"success": 0.0, "laps": 3.0}), Episode(0, 0, 1.0, 6, [])])
        reported = {k: v for k, v in p.episodes(Clock()).items() if "info" in k}
        assert reported == {"train/info/success": 0.5, "train/info/laps": 3.0}
        p.begin_interval(Clock())
        assert not any("info" in k for k in p.episodes(Clock()))
    old = {k: v for k, v in progress.state_dict().items() if k != "info"}  # of an older version
    resumed.load_state_dict(old, Clock())


def test_numbers_that_environments_report_stand_in_evaluations():
    episodes = [Episode(0, 0, 1.0, 6, [], info={"success": s}) for s in (1.0, 0.0, 1.0, 1.0)]
    assert evaluation_scalars(Evaluation(episodes).summary())["eval/info/success"] == 0.75
    assert "info" not in evaluation_of(1.0).summary()


def test_an_evaluation_may_end_the_run_early_but_not_at_its_end(tmp_path):
    trainer, checkpoints, evaluated = make(tmp_path, total_steps=30, evaluate=Every(6))
    told = []
    trainer.prune = lambda step, mean: told.append((step, mean)) or step == 12
    trainer.run()
    assert (trainer.pruned, trainer.loop.clock.steps, evaluated) == (True, 12, [6, 12])
    assert told == [(6, 0.0), (12, 0.0)]
    assert about(next(checkpoints.newest()))["steps"] == 12  # it can be resumed all the same
    other, _, _ = make(tmp_path / "other", total_steps=12, evaluate=Every(6))
    other.prune = lambda step, mean: step == 12
    other.run()
    assert not other.pruned
