"""The loop does what the textbook says, in its order, at the right times."""

import numpy as np
import pytest
import torch

from rl_runner.agents.dqn import DQN
from rl_runner.build import jobs
from rl_runner.loops.replay import ReplayLoop
from rl_runner.run import checkpoint
from rl_runner.schedules import Every
from rl_runner.types import Carry, Clock, LearnOutput, Transition, UserError
from tests.build.test_components import configuration, environments


class Recorder:
    """Stands in for every part of the loop and writes down what is asked of it."""

    action_mask = None

    def __init__(self, num_envs: int, episode_length: int) -> None:
        self.num_envs, self.episode_length = num_envs, episode_length
        self.calls: list[str] = []
        self.syncs: list[tuple[Clock, Clock]] = []
        self.added = 0
        self.t = 0
        self.finished: list[int] = []
        self.priorities: list[object] = []

    # environments
    def reset(self, mask=None):
        self.calls.append("reset" if mask is None else f"reset{mask.astype(int).tolist()}")
        return np.full((self.num_envs, 1), -1.0, dtype=np.float32)

    def send(self, action):
        self.calls.append("send")
        self.action = action

    def recv(self):
        self.calls.append("recv")
        self.t += 1
        over = np.zeros(self.num_envs, dtype=bool)
        over[0] = self.t % self.episode_length == 0  # only the first environment's episodes end
        self.finished = [0] if over[0] else []
        no = np.zeros(self.num_envs, dtype=bool)
        obs = np.full((self.num_envs, 1), float(self.t), dtype=np.float32)
        return Transition(obs - 1, self.action, np.ones(self.num_envs, np.float32), over, no, no, obs)

    # replay
    def add(self, tr):
        self.calls.append("store")
        self.added += len(tr.reward)

    def sample(self, batch_size):
        self.calls.append(f"sample{batch_size}")
        return _Batch()

    def update(self, ids, priority):
        self.calls.append("priorities")
        self.priorities.append((ids, priority))

    def metrics(self):
        return {"beta": 0.5}

    def learn(self, batch):
        self.calls.append("learn")
        return LearnOutput({"loss": torch.tensor(float(self.t))}, torch.tensor([7.0]))

    def sync(self, before, now):
        self.syncs.append((before, now))


class Agent:
    """Remembers nothing but how many steps ago each episode began, which it writes down."""

    def __init__(self, parts):
        self.parts, self.learn, self.sync, self.ages = parts, parts.learn, parts.sync, []

    def act(self, obs, carry, mode, action_mask=None):
        self.parts.calls.append(f"act@{mode.step}")
        age = np.zeros(len(obs), dtype=np.int64) if carry is None else np.where(carry.reset, 0, carry.state["age"] + 1)
        self.ages.append(age.tolist())
        return np.zeros(len(obs), dtype=np.int64), Carry({"age": age}, np.zeros(len(obs), dtype=np.bool_))

    def metrics(self, step):
        return {"epsilon": 1 / (1 + step)}


class _Batch:
    ids = np.array([3])


def make(num_envs=1, episode_length=1000, learning_starts=0, learn_every=1, updates_per_learn=1, overlap=False):
    parts = Recorder(num_envs, episode_length)
    agent, learn = Agent(parts), (learning_starts, Every(learn_every), updates_per_learn)
    return ReplayLoop(parts, agent, parts, np.random.default_rng(0), 32, *learn, overlap), parts


def test_one_step_in_the_textbooks_order():
    loop, parts = make()
    loop.step()
    order = ["reset", "act@0", "send", "recv", "store", "sample32", "learn", "priorities"]
    assert parts.calls == order
    assert parts.priorities == [(_Batch.ids, torch.tensor([7.0]))]
    assert loop.clock == Clock(steps=1, updates=1, episodes=0)


def test_learning_after_each_second_episode():
    parts = Recorder(num_envs=2, episode_length=3)  # of the first environment
    loop = ReplayLoop(parts, Agent(parts), parts, np.random.default_rng(0), 32, 0, Every(2, "episodes"), 2)
    updates = []
    for _ in range(13):
        loop.step()
        updates.append(loop.clock.updates)
    assert updates == [0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 4, 4]  # episodes end at the steps 3, 6, 9 and 12
    last = [call for call in parts.calls if call == "store" or call.startswith(("sample", "reset"))][-5:]
    assert last == ["store", "sample32", "sample32", "reset[1, 0]", "store"]  # its last step is there to be sampled


def test_learning_after_episodes_cannot_overlap_with_the_step():
    parts = Recorder(1, 3)
    with pytest.raises(UserError, match=r"^overlap: must be false with learn_every_episodes"):
        ReplayLoop(parts, Agent(parts), parts, np.random.default_rng(0), 32, 0, Every(1, "episodes"), overlap=True)


def test_a_memory_lasts_as_long_as_the_episode():
    loop, _ = make(num_envs=2, episode_length=3)
    for _ in range(7):
        loop.step()
    assert loop.agent.ages == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [2, 5], [0, 6]]


def test_overlapped_learning_happens_while_the_environments_step():
    loop, parts = make(learning_starts=1, overlap=True)
    loop.step()
    assert parts.calls == ["reset", "act@0", "send", "recv", "store"]  # nothing to learn from yet
    parts.calls.clear()
    loop.step()
    assert parts.calls == ["act@1", "send", "sample32", "learn", "priorities", "recv", "store"]
    assert loop.clock == Clock(steps=2, updates=1, episodes=0)


def test_scalars_are_means_since_the_last_call_and_where_things_stand():
    loop, _ = make(learn_every=2)
    seen = []
    for _ in range(6):
        loop.step()
        seen.append(loop.scalars() if loop.clock.steps in (4, 5, 6) else None)
    standing = {"learn/updates": 2, "learn/beta": 0.5, "explore/epsilon": 0.2}
    assert seen[3] == {"learn/loss": 3.0, **standing}  # updates after steps 2 and 4, whose losses are 2 and 4
    assert seen[4] == {**standing, "explore/epsilon": 1 / 6}  # none since
    assert seen[5] == {"learn/loss": 6.0, "learn/updates": 3, "learn/beta": 0.5, "explore/epsilon": 1 / 7}


def test_there_is_always_more_to_learn():
    loop, _ = make()
    loop.step()
    assert loop.done is False


def test_the_target_is_told_of_every_advance_of_the_clock():
    loop, parts = make(num_envs=4, episode_length=2, learn_every=2)
    for _ in range(5):
        loop.step()
    assert parts.syncs[0][0] == Clock()
    for (_, now), (before, _) in zip(parts.syncs, parts.syncs[1:], strict=False):
        assert now == before  # no gap and no overlap
    assert parts.syncs[-1][1] == loop.clock == Clock(steps=20, updates=10, episodes=2)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(("num_envs", "every", "updates"), [(1, 4, 1), (3, 4, 2), (8, 4, 1), (5, 2, 3)])
def test_updates_per_step_do_not_depend_on_the_number_of_environments(num_envs, every, updates, overlap):
    loop, _ = make(num_envs=num_envs, learn_every=every, updates_per_learn=updates, overlap=overlap)
    for _ in range(120 // num_envs):
        loop.step()
    missed = num_envs // every * updates if overlap else 0  # of the first step, before which nothing is stored
    assert loop.clock.updates == loop.clock.steps // every * updates - missed


def test_learning_starts_after_that_many_steps_and_not_before():
    loop, parts = make(num_envs=2, learning_starts=10)
    for _ in range(4):
        loop.step()
    assert "learn" not in parts.calls
    loop.step()
    assert loop.clock.steps == 10
    assert parts.calls.count("learn") == 2


def test_an_ended_environment_alone_is_reset_before_the_next_step():
    loop, parts = make(num_envs=3, episode_length=2, learning_starts=10**9)
    for _ in range(3):
        loop.step()
    assert parts.calls == [
        *["reset", "act@0", "send", "recv", "store"],
        *["act@3", "send", "recv", "store", "reset[1, 0, 0]"],
        *["act@6", "send", "recv", "store"],
    ]


def test_a_network_that_has_diverged_is_said():
    loop, _ = make()
    loop.meter.add({"loss": torch.tensor(1.0)})
    loop.meter.add({"loss": torch.tensor(float("nan"))})
    with pytest.raises(UserError, match=r"optimizer.lr: the network has diverged"):
        loop.scalars()


class Remembering(DQN):
    """Acts by how many steps it has seen of each episode."""

    def act(self, obs, carry, mode, action_mask=None):
        age = np.zeros(len(obs), np.int64) if carry is None else np.where(carry.reset, 0, carry.state["age"] + 1)
        self.age = age
        return age // 3 % 2, Carry({"age": age}, np.zeros(len(obs), np.bool_))


def test_a_memory_is_saved_and_restored(tmp_path):
    short = ["learning_starts=10", "learn_every_steps=3", "updates_per_learn=1", "batch_size=4"]
    cfg = configuration("env=cartpole", "env.num_envs=3", *short)
    cfg["agent"]["_target_"] = f"{__name__}.Remembering"
    loop, other = (jobs.learner_of(cfg, environments(cfg), torch.device("cpu")).loop() for _ in range(2))
    for _ in range(37):
        loop.step()
    checkpoint.save(tmp_path / "saved", loop.state_dict(), {})
    other.load_state_dict(checkpoint.load(tmp_path / "saved"))
    for _ in range(30):
        loop.step()
        other.step()
        assert other.agent.age.tolist() == loop.agent.age.tolist()
        np.testing.assert_array_equal(other.obs, loop.obs)
    assert len(set(loop.agent.age.tolist())) > 1
    assert loop.clock.episodes > 3


def test_a_lost_environments_rows_end_where_it_was_lost() -> None:
    loop, parts = make(num_envs=2)
    loop.step()
    cuts = []
    parts.state_dict, parts.load_state_dict = dict, lambda state: np.zeros((2, 1), np.float32)
    loop.agent.state_dict, loop.agent.load_state_dict = dict, lambda state: None
    parts.lost, parts.cut = np.array([False, True]), lambda mask: cuts.append(mask.tolist())
    loop.load_state_dict(loop.state_dict())
    assert cuts == [[False, True]]
    assert parts.calls[-1] == "reset[0, 1]"
    loop.load_state_dict({**loop.state_dict(), "replay": None})  # its rows were not saved
    assert cuts == [[False, True]]
    assert parts.calls[-1] == "reset"
    assert parts.step_offset == loop.clock.steps == 2
