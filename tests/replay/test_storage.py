from __future__ import annotations

import copy
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner.replay.storage import RowStorage
from rl_runner.types import Transition, UserError
from tests.replay.oracle import OUTCOMES, NaiveReplay, World, random_script

thorough = settings(max_examples=120, deadline=None, derandomize=True, database=None)


def storage_for(world: World, rows: int) -> RowStorage:
    return RowStorage(
        rows * world.num_envs,
        world.num_envs,
        world.obs_shape,
        world.obs_dtype,
        world.action_shape,
        world.action_dtype,
        world.stack,
    )


def startable_ids(storage: RowStorage) -> set[int]:
    ids = np.arange(storage.rows * storage.num_envs)
    return set(np.flatnonzero(storage.startable(ids)).tolist())


def fill(storage: RowStorage, world: World, script, naive: NaiveReplay | None = None) -> None:
    for outcomes in script:
        tr, cut = world.step(outcomes)
        storage.add(tr)
        storage.cut(cut)
        if naive:
            naive.add(tr)
            naive.cut(cut)


@st.composite
def histories(draw):
    num_envs = draw(st.integers(1, 3))
    outcome = st.one_of(st.just("go"), st.just("go"), st.sampled_from(OUTCOMES))
    script = draw(st.lists(st.tuples(*[outcome] * num_envs), min_size=1, max_size=40))
    return num_envs, script


@thorough
@given(histories(), st.integers(1, 4), st.integers(1, 5), st.integers(0, 25))
def test_startable_is_the_oracles_set_and_stacks_come_back_bit_for_bit_after_every_step(history, stack, n, extra):
    num_envs, script = history
    world = World(num_envs, stack)
    storage = storage_for(world, rows=stack + 1 + extra)
    naive = NaiveReplay(storage.rows, num_envs, stack, n, gamma=1.0)
    for outcomes in script:
        tr, cut = world.step(outcomes)
        ids = storage.add(tr)
        naive.add(tr)
        last = [naive.episodes[i][-1].rows[-2] % storage.rows * num_envs + i for i in range(num_envs)]
        np.testing.assert_array_equal(ids, last)
        storage.cut(cut)
        naive.cut(cut)

        starts = naive.starts()
        assert startable_ids(storage) == set(starts)
        assert all(i < storage.id_bound for i in starts)
        ids = np.array(sorted(starts))
        got = storage.obs(ids)
        assert got.dtype == world.obs_dtype
        np.testing.assert_array_equal(got, [starts[i][0].obs[starts[i][1]] for i in ids.tolist()])


@thorough
@given(histories(), st.sampled_from(["frames", "vector", "discrete"]), st.integers(1, 5), st.integers(0, 25))
def test_windows_stop_at_terminal_steps_episode_ends_and_the_write_pointer(history, kind, n, extra):
    num_envs, script = history
    stack = 3 if kind == "frames" else 1
    world = World(num_envs, stack, kind)
    storage = storage_for(world, rows=stack + 1 + extra)
    naive = NaiveReplay(storage.rows, num_envs, stack, n, gamma=1.0)
    fill(storage, world, script, naive)
    starts = naive.starts()
    ids = np.array(sorted(starts))
    window = storage.window(ids, n)
    next_obs = storage.obs(window.next_ids)
    for b, i in enumerate(ids.tolist()):
        log, t = starts[i]
        m = 1
        while m < n and t + m < len(log.steps) and not log.steps[t + m - 1][2]:
            m += 1
        assert window.length[b] == m
        assert window.terminal[b] == log.steps[t + m - 1][2]
        rewards = [r for _, r, _ in log.steps[t : t + m]] + [0.0] * (n - m)
        np.testing.assert_array_equal(window.reward[b], np.array(rewards, dtype=np.float32))
        np.testing.assert_array_equal(next_obs[b], log.obs[t + m])
        np.testing.assert_array_equal(storage.action[i // num_envs, i % num_envs], log.steps[t][0])


def test_a_row_whose_oldest_frame_was_just_overwritten_cannot_be_started_at():
    world = World(num_envs=1, stack=4)
    storage = storage_for(world, rows=6)
    fill(storage, world, [("go",)] * 20)  # 21 rows written: the ring holds 15 to 20, and 20 has no action yet
    assert startable_ids(storage) == {18 % 6, 19 % 6}


def test_a_windows_end_is_found_even_where_n_is_longer_than_the_ring():
    world = World(num_envs=1, stack=1)
    storage = storage_for(world, rows=3)
    fill(storage, world, [("go",)] * 10)
    window = storage.window(np.array(sorted(startable_ids(storage))), 5)
    assert sorted(window.length.tolist()) == [1, 2]


def test_cut_ends_the_episode_as_a_truncation_does_and_only_where_asked():
    world = World(num_envs=2, stack=2)
    storage = storage_for(world, rows=10)
    fill(storage, world, [("go", "go"), ("cut", "go"), ("go", "go")])
    assert storage.written.tolist() == [5, 4]
    window = storage.window(np.array([0, 1]), 5)
    assert window.length.tolist() == [2, 3]
    assert window.terminal.tolist() == [False, False]
    first_row = storage.obs(np.array([3 * 2]))[0]
    assert not first_row[0].any()
    assert first_row[1].any()


def test_cutting_twice_or_after_an_end_or_before_anything_is_stored_writes_nothing():
    world = World(num_envs=2, stack=1)
    storage = storage_for(world, rows=10)
    storage.cut(np.array([True, True]))
    fill(storage, world, [("terminated", "go")])
    storage.cut(np.array([True, False]))
    storage.cut(np.array([True, False]))
    fill(storage, world, [("go", "go")])
    assert storage.written.tolist() == [4, 3]


def test_what_was_stored_does_not_change_when_the_callers_arrays_do():
    world = World(num_envs=1, stack=2)
    storage = storage_for(world, rows=10)
    tr, _ = world.step(("go",))
    kept = copy.deepcopy(tr)
    storage.add(tr)
    for array in tr[:7]:
        array[...] = 0
    np.testing.assert_array_equal(storage.obs(np.array([0, 1])), [kept.obs[0], kept.next_obs[0]])
    assert storage.action[0, 0] == kept.action[0]
    assert not storage.episode_over.any()


def test_uint8_comes_back_as_uint8_at_both_ends_of_its_range():
    storage = RowStorage(10, 1, (2, 1), np.uint8, stack=2)
    no = np.zeros(1, dtype=np.bool_)
    first, second = np.array([[[0], [255]]], np.uint8), np.array([[[255], [0]]], np.uint8)
    storage.add(Transition(first, np.array([17]), np.float32([255]), no, no, no, second))
    got = storage.obs(np.array([0, 1]))
    assert got.dtype == np.uint8
    assert got[:, :, 0].tolist() == [[0, 255], [255, 0]]


def test_a_million_atari_transitions_take_at_most_7_2_gigabytes_and_none_until_they_are_written():
    def resident() -> int:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    before = resident()
    storage = RowStorage(1_000_000, 8, (4, 84, 84), np.uint8, stack=4)
    assert storage.rows * storage.num_envs == 1_000_000
    assert storage.nbytes <= 7.2e9
    assert resident() - before < 50e6
    state = storage.state_dict()
    assert sum(a.nbytes for a in state["rows"].values()) == 0
    assert storage.id_bound == 0
    assert resident() - before < 50e6


@pytest.mark.parametrize(("capacity", "num_envs", "stack"), [(3, 4, 1), (0, 1, 1), (4, 1, 4), (1, 1, 1)])
def test_a_capacity_in_which_no_row_could_ever_be_sampled_is_refused(capacity, num_envs, stack):
    with pytest.raises(UserError, match=r"replay\.capacity"):
        RowStorage(capacity, num_envs, (stack, 2), np.uint8, stack=stack)


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("steps", [3, 17, 70])
def test_a_loaded_storage_goes_on_exactly_as_the_saved_one(stack, steps):
    world = World(num_envs=3, stack=stack)
    storage = storage_for(world, rows=20)
    fill(storage, world, random_script(1, steps, 3))
    other = storage_for(world, rows=20)
    other.load_state_dict(copy.deepcopy(storage.state_dict()))
    for outcomes in [None, *random_script(2, 40, 3)]:
        if outcomes:
            tr, cut = world.step(outcomes)
            np.testing.assert_array_equal(storage.add(tr), other.add(tr))
            storage.cut(cut)
            other.cut(cut)
        ids = np.array(sorted(startable_ids(storage)))
        assert startable_ids(other) == set(ids.tolist())
        np.testing.assert_array_equal(storage.obs(ids), other.obs(ids))
        for a, b in zip(storage.window(ids, 3), other.window(ids, 3), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_state_holds_only_the_rows_written_so_far():
    world = World(num_envs=2, stack=2)
    storage = storage_for(world, rows=1000)
    fill(storage, world, [("go", "terminated"), ("go", "go")])
    assert len(storage.state_dict()["rows"]["frame"]) == 4


def test_loading_forgets_what_the_storage_held_before():
    world = World(num_envs=1, stack=1)
    small, used = storage_for(world, rows=20), storage_for(world, rows=20)
    fill(small, world, [("go",)] * 3)
    fill(used, world, [("go",)] * 30)
    used.load_state_dict(copy.deepcopy(small.state_dict()))
    assert startable_ids(used) == startable_ids(small) == {0, 1, 2}


def test_a_ring_not_yet_full_may_be_loaded_into_a_larger_one():
    world = World(num_envs=2, stack=2)
    small, large = storage_for(world, rows=20), storage_for(world, rows=50)
    naive = NaiveReplay(50, 2, 2, n_step=1, gamma=1.0)
    fill(small, world, [("go", "go")] * 19, naive)  # exactly full
    large.load_state_dict(copy.deepcopy(small.state_dict()))
    fill(large, world, [("go", "terminated")] * 9, naive)
    starts = naive.starts()
    assert startable_ids(large) == set(starts)
    ids = np.array(sorted(starts))
    np.testing.assert_array_equal(large.obs(ids), [starts[i][0].obs[starts[i][1]] for i in ids.tolist()])


@pytest.mark.parametrize(
    ("saved", "configured"),
    [
        ({"capacity": 40}, {"capacity": 20}),  # too many rows
        ({"num_envs": 2}, {"num_envs": 4}),
        ({"obs_shape": (3,)}, {"obs_shape": (4,)}),
        ({"obs_dtype": np.float32}, {"obs_dtype": np.uint8}),
        ({"action_shape": ()}, {"action_shape": (2,)}),
        ({"capacity": 40}, {"capacity": 80}),  # wrapped: its rows stand at positions modulo the old size
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_never_misread(saved, configured):
    base = {"capacity": 40, "num_envs": 2, "obs_shape": (3,), "obs_dtype": np.float32, "action_shape": ()}
    storage = RowStorage(**{**base, **saved})
    no = np.zeros(2, dtype=np.bool_)
    obs = np.ones((2, *storage.frames.shape[2:]), dtype=storage.frames.dtype)
    for _ in range(50):
        storage.add(Transition(obs, np.zeros(2, np.int64), np.ones(2, np.float32), no, no, no, obs))
    with pytest.raises(ValueError, match=r"^replay .*: saved .*, configured "):
        RowStorage(**{**base, **configured}).load_state_dict(storage.state_dict())


def mask_of(obs) -> np.ndarray:
    """Masks (N, 4) as a function of what is shown: the bits of the newest frame's number."""
    flat = obs.reshape(len(obs), -1)
    number = flat[:, max(flat.shape[1] - 6, 0)].astype(np.int64)
    return (number[:, None] >> np.arange(4)) % 2 == 1


@pytest.mark.parametrize(("stack", "kind"), [(1, "vector"), (1, "discrete"), (3, "frames")])
def test_each_rows_mask_is_that_of_its_observation_also_after_a_restore(stack, kind):
    world = World(2, stack, kind)
    storage, other = (storage_for(world, rows=9) for _ in range(2))
    for outcomes in random_script(1, 60, 2):
        tr, cut = world.step(outcomes)
        storage.add(tr._replace(action_mask=mask_of(tr.obs), next_action_mask=mask_of(tr.next_obs)))
        storage.cut(cut)
    other.load_state_dict(copy.deepcopy(storage.state_dict()))
    ids = np.array(sorted(startable_ids(storage)))
    for each in (storage, other):
        for rows in (ids, each.window(ids, 3).next_ids):
            np.testing.assert_array_equal(each.allowed(rows), mask_of(np.asarray(each.obs(rows))))
    assert 0 < storage.allowed(ids).mean() < 1


def test_without_masks_none_are_stored_and_rows_from_before_the_first_mask_allow_all():
    world = World(2, 1, "vector")
    storage = storage_for(world, rows=9)
    tr, _ = world.step(("go", "go"))
    storage.add(tr)
    assert storage.allowed(np.array([0, 1])) is None
    assert "action_mask" not in storage.state_dict()["rows"]
    tr, _ = world.step(("go", "go"))
    first, then = np.ones((2, 4), np.bool_), np.zeros((2, 4), np.bool_)
    storage.add(tr._replace(action_mask=first, next_action_mask=then))
    assert storage.allowed(np.arange(4)).all()
    assert not storage.allowed(np.array([4, 5])).any()
