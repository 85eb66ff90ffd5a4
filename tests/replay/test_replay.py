from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Prioritized, Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.types import Batch, UserError
from tests.replay.oracle import KINDS, OUTCOMES, NaiveReplay, World, random_script


def pair(world: World, rows: int, n_step: int, gamma: float, clip: float | None, seed: int = 0, sampler=None):
    """Return the replay and its oracle."""
    storage = RowStorage(
        rows * world.num_envs,
        world.num_envs,
        world.obs_shape,
        world.obs_dtype,
        world.action_shape,
        world.action_dtype,
        world.stack,
    )
    rng, cpu = np.random.default_rng(seed), torch.device("cpu")
    replay = Replay(storage, sampler or Uniform(), gamma, n_step, clip, rng, cpu)
    return replay, NaiveReplay(rows, world.num_envs, world.stack, n_step, gamma, clip)


def fill(world: World, script, *replays) -> None:
    for outcomes in script:
        tr, cut = world.step(outcomes)
        for replay in replays:
            replay.add(tr)
            replay.cut(cut)


def check(batch: Batch, naive: NaiveReplay) -> None:
    starts = naive.starts()
    for b, i in enumerate(batch.ids.tolist()):
        obs, action, reward, discount, next_obs = naive.read(*starts[i])
        np.testing.assert_array_equal(batch.obs[b].numpy(), obs)
        np.testing.assert_array_equal(batch.action[b].numpy(), action)
        np.testing.assert_array_equal(batch.next_obs[b].numpy(), next_obs)
        np.testing.assert_allclose(batch.reward[b].item(), reward, rtol=1e-6, atol=1e-6)
        assert (batch.discount[b].item() == 0) == (discount == 0)
        np.testing.assert_allclose(batch.discount[b].item(), discount, rtol=1e-6)
        assert batch.weight[b].item() == 1


@st.composite
def cases(draw):
    num_envs = draw(st.integers(1, 3))
    outcome = st.one_of(st.just("go"), st.just("go"), st.sampled_from(OUTCOMES))
    script = draw(st.lists(st.tuples(*[outcome] * num_envs), min_size=1, max_size=40))
    kind = draw(st.sampled_from(KINDS))
    stack = draw(st.integers(1, 4)) if kind == "frames" else 1
    rows = stack + 1 + draw(st.integers(0, 25))
    gamma = draw(st.sampled_from([0.5, 0.99, 1.0]))
    clip = draw(st.sampled_from([None, 1.0, 0.2]))
    return World(num_envs, stack, kind), script, rows, draw(st.integers(1, 5)), gamma, clip


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(cases())
def test_every_batch_is_what_the_oracle_reads_from_whole_episodes(case):
    world, script, rows, n_step, gamma, clip = case
    replay, naive = pair(world, rows, n_step, gamma, clip)
    fill(world, script, replay, naive)
    starts = np.array(sorted(naive.starts()))
    check(replay.read(starts, np.ones(len(starts), np.float32)), naive)
    batch = replay.sample(32)
    assert set(batch.ids.tolist()) <= set(starts.tolist())
    check(batch, naive)
    assert replay.added == len(script) * world.num_envs


def test_batches_have_the_types_that_learners_expect():
    world = World(2, 4)
    replay, _ = pair(world, 30, 3, 0.99, None)
    fill(world, random_script(0, 20, 2), replay)
    batch = replay.sample(8)
    assert batch.obs.shape == batch.next_obs.shape == (8, 4, 2, 3)
    assert batch.obs.dtype == batch.next_obs.dtype == torch.uint8
    assert batch.action.dtype == torch.int64
    assert batch.reward.dtype == batch.discount.dtype == batch.weight.dtype == torch.float32
    assert batch.action.shape == batch.reward.shape == batch.discount.shape == batch.weight.shape == (8,)
    assert batch.ids.dtype == np.int64


@pytest.mark.parametrize("seed", [0, 1])
def test_sampling_is_uniform_over_exactly_the_startable_rows(seed):
    world = World(3, 4)
    replay, naive = pair(world, 25, 3, 0.99, None, seed)
    fill(world, random_script(seed, 100, 3), replay, naive)
    starts = sorted(naive.starts())
    assert len(starts) < 3 * 25 - 3  # there is something to reject: first rows cut off, final rows, newest rows
    draws = 400 * len(starts)
    ids = np.concatenate([replay.sample(100).ids for _ in range(draws // 100)])
    counts = np.bincount(ids, minlength=75)
    assert set(np.flatnonzero(counts).tolist()) == set(starts)
    expected = len(ids) / len(starts)
    chi2 = ((counts[starts] - expected) ** 2 / expected).sum()
    free = len(starts) - 1
    assert abs(chi2 - free) < 4 * np.sqrt(2 * free)


@pytest.mark.parametrize(
    ("outcome", "discount"),
    [
        ("truncated", 0.81),
        ("cut", 0.81),
        ("terminated", 0.0),
        ("both", 0.0),
        ("life", 0.0),
        ("life and truncated", 0.0),
    ],
)
def test_a_truncated_episode_bootstraps_from_its_true_last_observation_and_a_terminated_one_never(outcome, discount):
    world = World(1, 2)
    replay, _ = pair(world, 30, 4, 0.9, None)
    fill(world, [("go",)], replay)
    last, cut = world.step((outcome,))
    replay.add(last)
    replay.cut(cut)
    fill(world, [("go",)] * 5, replay)
    batch = replay.read(np.array([0]), np.ones(1, np.float32))
    assert batch.discount.item() == pytest.approx(discount)
    np.testing.assert_array_equal(batch.next_obs[0].numpy(), last.next_obs[0])


def test_a_life_loss_ends_the_window_but_not_the_stack():
    world = World(1, 3)
    replay, _ = pair(world, 30, 5, 0.9, None)
    fill(world, [("go",), ("life",)], replay)
    after, _ = world.step(("go",))
    replay.add(after)
    batch = replay.read(np.array([0, 2]), np.ones(2, np.float32))
    assert batch.discount.tolist() == pytest.approx([0.0, 0.9])
    np.testing.assert_array_equal(batch.obs[1].numpy(), after.obs[0])
    assert batch.obs[1].numpy().reshape(3, -1).any(axis=1).all()  # frames from before the loss are still there


def test_a_window_grows_as_its_steps_become_known():
    world = World(1, 1)
    replay, naive = pair(world, 30, 3, 0.5, None)
    for length in (1, 2, 3, 3):
        fill(world, [("go",)], replay, naive)
        batch = replay.read(np.array([0]), np.ones(1, np.float32))
        assert batch.discount.item() == 0.5**length
        check(batch, naive)


def test_rewards_are_clipped_for_learning_one_by_one_and_stored_raw():
    world = World(1, 1)
    replay, _ = pair(world, 30, 2, 0.5, 1.0)
    trs = [world.step(("go",))[0]._replace(reward=np.float32([r])) for r in (400.0, -7.0, 0.25)]
    for tr in trs:
        replay.add(tr)
    batch = replay.read(np.array([0, 1]), np.ones(2, np.float32))
    assert batch.reward.tolist() == [1 - 0.5 * 1, -1 + 0.5 * 0.25]
    assert replay.storage.reward[:3, 0].tolist() == [400.0, -7.0, 0.25]


def test_gamma_one_and_gamma_zero_are_not_mistaken_for_ends():
    world = World(1, 1)
    for gamma, discount in [(1.0, 1.0), (0.0, 0.0)]:
        replay, _ = pair(world, 30, 3, gamma, None)
        trs = [world.step(("go",))[0] for _ in range(3)]
        for tr in trs:
            replay.add(tr)
        batch = replay.read(np.array([0]), np.ones(1, np.float32))
        assert batch.discount.item() == discount
        total = sum(float(tr.reward[0]) for tr in trs) if gamma else float(trs[0].reward[0])
        assert batch.reward.item() == pytest.approx(total)


def test_a_batch_does_not_change_when_its_rows_are_overwritten():
    world = World(2, 2)
    replay, _ = pair(world, 8, 2, 0.9, None)
    fill(world, random_script(5, 10, 2), replay)
    batch = replay.sample(16)
    kept = copy.deepcopy(batch)
    fill(world, random_script(6, 30, 2), replay)
    for a, b in zip(batch, kept, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def is_plain(tree) -> bool:
    if isinstance(tree, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in tree.items())
    if isinstance(tree, list):
        return all(is_plain(v) for v in tree)
    return tree is None or isinstance(tree, (int, float, str, np.ndarray, torch.Tensor))


@pytest.mark.parametrize("steps", [5, 60])
def test_a_loaded_replay_gives_the_very_samples_that_the_saved_one_gives(steps):
    world = World(3, 4)
    replay, _ = pair(world, 20, 3, 0.99, 1.0, seed=7)
    fill(world, random_script(3, steps, 3), replay)
    replay.sample(17)
    state = replay.state_dict()
    assert is_plain(state)
    other, _ = pair(world, 20, 3, 0.99, 1.0, seed=8)
    other.load_state_dict(copy.deepcopy(state))
    assert other.added == replay.added == 3 * steps
    for outcomes in random_script(4, 50, 3):
        fill(world, [outcomes], replay, other)
        for a, b in zip(replay.sample(11), other.sample(11), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_the_random_stream_of_a_state_does_not_move_with_the_replay():
    world = World(1, 1)
    replay, _ = pair(world, 20, 1, 0.99, None)
    fill(world, [("go",)] * 10, replay)
    state = replay.state_dict()
    first = replay.sample(50).ids
    replay.load_state_dict(state)
    np.testing.assert_array_equal(replay.sample(50).ids, first)


ALPHA, BETA, BETA_STEPS, EPSILON = 0.7, 0.4, 60, 0.01


def prioritized_pair(world: World, rows: int, n_step: int, seed: int = 0):
    sampler = Prioritized(rows * world.num_envs, ALPHA, BETA, BETA_STEPS, EPSILON)
    return pair(world, rows, n_step, 0.9, None, seed, sampler)


def learn(replay: Replay, naive: NaiveReplay, rng: np.random.Generator, size: int = 8) -> None:
    """Draw a batch, check its rows and weights against the oracle, write priorities to both."""
    batch, wanted = replay.sample(size), naive.priorities()
    ids = batch.ids.tolist()
    assert set(ids) <= set(wanted)
    beta = BETA + (1 - BETA) * min(1.0, naive.added / BETA_STEPS)
    weights = [wanted[i] ** -beta for i in ids]
    np.testing.assert_allclose(batch.weight, [w / max(weights) for w in weights], rtol=1e-5)
    assert batch.weight.max() == 1  # over the whole batch, whatever was drawn again
    priority = dict.fromkeys(ids, 0.0) | {
        i: float(p) for i, p in zip(ids, rng.exponential(size=size) ** 3, strict=True)
    }
    replay.update(batch.ids, torch.tensor([priority[i] for i in ids], dtype=torch.float64))
    naive.prioritize(priority.keys(), priority.values(), ALPHA, EPSILON)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(cases(), st.integers(1, 3), st.integers(0, 1000))
def test_priorities_are_those_of_a_list_of_whole_episodes(case, every, seed):
    world, script, rows, n_step, *_ = case
    replay, naive = prioritized_pair(world, rows, n_step, seed)
    rng = np.random.default_rng(seed)
    for step, outcomes in enumerate(script):
        fill(world, [outcomes], replay, naive)
        if step % every == 0:
            learn(replay, naive, rng)
    wanted = naive.priorities()  # of all rows, not only of those drawn
    ids = np.array(list(wanted))
    np.testing.assert_allclose(replay.sampler.state_dict()["priority"][ids], list(wanted.values()), rtol=1e-12)


def prioritized_world(seed: int) -> tuple[Replay, NaiveReplay]:
    """Rings that have wrapped more than once, with priorities all over: 3 environments, many ends."""
    world, rng = World(3, 2), np.random.default_rng(seed)
    replay, naive = prioritized_pair(world, 12, 3, seed)
    for outcomes in random_script(seed, 60, 3):
        fill(world, [outcomes], replay, naive)
        learn(replay, naive, rng)
    return replay, naive


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [1, 16])
def test_rows_that_can_start_a_window_are_drawn_in_proportion_to_their_priorities(seed, size):
    replay, naive = prioritized_world(seed)
    wanted = naive.priorities()
    assert len(wanted) < 3 * 12 - 3
    ids = np.concatenate([replay.sample(size).ids for _ in range(6400 // size)])
    expected = 6400 * np.array(list(wanted.values())) / sum(wanted.values())
    counts = np.bincount(ids, minlength=36)[list(wanted)]
    assert counts.sum() == 6400
    often = expected >= 5
    chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert chi2 < often.sum() + 4 * np.sqrt(2 * often.sum())
    rare, below = counts[~often].sum(), expected[~often].sum()
    assert rare < below + 4 * np.sqrt(below) + 4


def test_rows_drawn_again_are_weighted_with_the_others(monkeypatch):
    replay, naive = prioritized_world(0)
    asked, sample = [], replay.sampler.sample

    def record(n, step, rng):
        asked.append(n)
        return sample(n, step, rng)

    monkeypatch.setattr(replay.sampler, "sample", record)
    rng = np.random.default_rng(0)
    for _ in range(50):
        learn(replay, naive, rng)
    assert asked.count(8) >= 50
    assert sum(asked) > 50 * 8  # some were drawn again


def test_rows_without_an_action_have_no_priority():
    """Also in a ring that has wrapped, where they had another transition's."""
    replay, _ = prioritized_world(0)
    priority = replay.sampler.state_dict()["priority"]
    assert (priority[~replay.storage.has_action.ravel()] == 0).all()
    assert (priority[replay.storage.has_action.ravel()] > 0).all()


def test_a_loaded_prioritized_replay_gives_the_very_samples_that_the_saved_one_gives():
    world, rng = World(3, 4), np.random.default_rng(0)
    replay, naive = prioritized_pair(world, 20, 3)
    for outcomes in random_script(3, 60, 3):
        fill(world, [outcomes], replay, naive)
        learn(replay, naive, rng)
    state = replay.state_dict()
    assert is_plain(state)
    other, _ = prioritized_pair(world, 20, 3, seed=8)
    other.load_state_dict(copy.deepcopy(state))
    assert other.metrics() == replay.metrics()
    for outcomes in random_script(4, 50, 3):
        fill(world, [outcomes], replay, other)
        a, b = replay.sample(11), other.sample(11)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
        priority = torch.from_numpy(rng.exponential(size=11))
        replay.update(a.ids, priority)
        other.update(b.ids, priority)


def test_priorities_go_to_the_sampler():
    class Recorder(Uniform):
        def update(self, ids, priority):
            self.seen = ids, priority

    world = World(1, 1)
    replay, _ = pair(world, 20, 1, 0.99, None)
    replay.sampler = Recorder()
    fill(world, [("go",)] * 5, replay)
    ids = np.array([1, 2])
    replay.update(ids, None)
    assert replay.sampler.seen == (ids, None)


def test_the_samplers_step_counts_all_environments_and_what_the_run_did_before():
    world = World(3, 1)
    replay, _ = prioritized_pair(world, 20, 1)
    fill(world, [("go",) * 3] * 4, replay)
    assert replay.metrics()["beta"] == pytest.approx(BETA + (1 - BETA) * 12 / BETA_STEPS)
    replay, _ = prioritized_pair(world, 20, 1)
    replay.step_offset = 30  # it was resumed without its rows
    fill(world, [("go",) * 3] * 2, replay)
    assert replay.added == 6  # learning waits for what is stored, not for what was
    beta = BETA + (1 - BETA) * 36 / BETA_STEPS
    assert replay.metrics()["beta"] == pytest.approx(beta)
    replay.sampler.update(np.arange(6), torch.arange(6.0))
    batch, priority = replay.sample(40), replay.sampler.state_dict()["priority"]
    raw = priority[batch.ids] ** -beta
    np.testing.assert_allclose(batch.weight, raw / raw.max(), rtol=1e-5)
    other, _ = prioritized_pair(world, 20, 1)
    other.load_state_dict(replay.state_dict())
    assert other.metrics() == replay.metrics()


def test_metrics_are_the_samplers():
    replay, _ = prioritized_pair(World(1, 1), 20, 1)
    assert replay.metrics() == replay.sampler.metrics(0)
    assert replay.metrics()["beta"] == BETA
    assert pair(World(1, 1), 20, 1, 0.9, None)[0].metrics() == {}


class Always(Uniform):
    """A sampler of the user's own that always returns the same rows."""

    def __init__(self, ids) -> None:
        super().__init__()
        self.ids = ids

    def sample(self, n, step, rng):
        return self.ids[:n]


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (np.array([0, 4]), r"Always\.sample must return ids of rows \(2,\), an array of .*, here from 0 to 3$"),
        (np.array([0, -1]), "here from 0 to 3$"),
        (np.array([0.0, 1.0]), "here from 0 to 3$"),
        ([0, 1], "here from 0 to 3$"),
        (np.array([0]), "here from 0 to 3$"),
        (
            np.array([2, 3]),
            r"Always\.sample returned rows at which no window can start, .*; each call must draw others$",
        ),
    ],
)
def test_a_sampler_that_returns_no_usable_rows_is_named(ids, wanted):
    world = World(2, 1, "vector")
    replay, _ = pair(world, rows=8, n_step=1, gamma=0.9, clip=None, sampler=Always(ids))
    fill(world, [("terminated", "terminated")], replay)  # ids 0 and 1 have an action, 2 and 3 are final rows
    with pytest.raises(UserError, match=f"^replay.sampler: .*{wanted}"):
        replay.sample(2)


def test_a_sampler_that_cannot_load_its_state_is_named():
    class Mine(Uniform):
        def load_state_dict(self, state):
            self.draws = state["draws"]

    replay, _ = pair(World(2, 1, "vector"), rows=8, n_step=1, gamma=0.9, clip=None, sampler=Mine())
    with pytest.raises(ValueError, match=r"^replay\.sampler: Mine cannot load its state: KeyError\('draws'\)$"):
        replay.load_state_dict(replay.state_dict())


@pytest.mark.parametrize("weight", [np.ones((2, 1), np.float32), np.ones(2, int), [1.0, 1.0], None])
def test_a_sampler_that_returns_no_weights_is_named(weight):
    class Mine(Uniform):
        def weight(self, ids, step):
            return weight

    world = World(2, 1, "vector")
    replay, _ = pair(world, rows=8, n_step=1, gamma=0.9, clip=None, sampler=Mine())
    fill(world, [("terminated", "terminated")], replay)
    line = r"^replay\.sampler: Mine\.weight must return an array of floats \(B,\), here \(2,\)$"
    with pytest.raises(UserError, match=line):
        replay.sample(2)
