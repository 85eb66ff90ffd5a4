"""The shell round a loop: everything happens when the plan says, and the best agent is kept."""

from pathlib import Path

import numpy as np
import pytest

from rl_runner.checkpoint import Checkpoints, about
from rl_runner.evaluate import Evaluation
from rl_runner.metrics import MetricsLog
from rl_runner.schedules import Every
from rl_runner.trainer import Plan, Trainer
from rl_runner.types import Clock, Episode


class CountingAgent:
    def __init__(self):
        self.version = 0

    def state_dict(self):
        return {"version": self.version}


class Envs:
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


class Said:
    def __init__(self):
        self.lines = []

    def advance(self, clock):
        pass

    def update(self, clock, scalars):
        self.lines.append((clock.steps, scalars))

    def say(self, line):
        self.lines.append(line)


def evaluation_of(score):
    return Evaluation([Episode(0, 0, score - 1, 10, []), Episode(0, 0, score + 1, 10, [])])


def make(tmp_path: Path, scores=None, stopped=lambda: False, **plan):
    everything = {"total_steps": 30, "log": Every(9), "evaluate": Every(0), "checkpoint": Every(0), **plan}
    loop, evaluated = FakeLoop(), []

    def evaluation(step):
        evaluated.append(step)
        return evaluation_of(scores[step] if scores else 0.0)

    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=10)
    trainer = Trainer(loop, evaluation, checkpoints, MetricsLog(tmp_path), Said(), Plan(**everything), stopped)
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
    trainer, checkpoints, _ = make(tmp_path, checkpoint=Every(9), evaluate=Every(9))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    monkeypatch.setattr(checkpoints, "save_best", full)
    trainer.run()
    assert trainer.loop.clock.steps == 30
    assert any("No space left on device" in line for line in trainer.terminal.lines if isinstance(line, str))


def test_checkpoints_leave_the_replay_out_when_told_so(tmp_path):
    from rl_runner.checkpoint import load

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
    resumed = Trainer(before.loop, before.evaluation, before.checkpoints, log, Said(), before.plan)
    resumed.load_state_dict({**before._state(), "logged": vars(Clock(steps=500))})
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
