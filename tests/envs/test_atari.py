from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv

from rl_runner.envs.atari import AtariBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.types import UserError
from tests.replay.oracle import NaiveReplay

SHORT = 280  # frames an episode: 70 steps. A seeded reset loads the ROM again, 0.1 s, so resets are few here.


def make(game, num_envs=3, seed=0, **kwargs):
    return EpisodicVectorEnv(AtariBackend(game, num_envs, **{"sticky": 0.25, "threads": 1, **kwargs}), seed, "train")


def run(envs, rng, steps, obs, see=lambda tr, mask: None, abandon=()):
    """Step with random actions; `see` each transition and which environments start again after it.

    Steps in `abandon` end the episode of one environment, so that the environments are not at the same age.

    Returns:
        transitions, finished episodes, the last observation.
    """
    transitions, episodes = [], []
    for k in range(steps):
        envs.send(rng.integers(envs.action_space.n, size=envs.num_envs))
        tr = envs.recv()
        transitions.append(tr)
        episodes += envs.finished
        mask = tr.ended | ((np.arange(envs.num_envs) == k % envs.num_envs) & (k in abandon))
        see(tr, mask)
        obs = envs.reset(mask) if mask.any() else tr.next_obs
    return transitions, episodes, obs


def assert_same_transitions(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a[:7], b[:7], strict=True):  # without masks of actions
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("game", "max_frames", "stack", "steps", "rows"),
    [
        ("pong", SHORT, 4, 160, 90),  # the rings wrap
        ("breakout", 108_000, 4, 260, 1000),  # whole games
        ("breakout", SHORT, 2, 160, 1000),
    ],
)
def test_stacks_rebuilt_from_storage_are_those_that_the_emulator_gave(game, max_frames, stack, steps, rows):
    envs = make(game, max_frames=max_frames, stack=stack)
    storage = RowStorage(rows * 3, 3, envs.observation_space.shape, np.uint8, stack=stack)
    replay = Replay(storage, Uniform(), 0.99, 3, None, np.random.default_rng(0), torch.device("cpu"))
    naive = NaiveReplay(rows, 3, stack, 3, 0.99)

    def see(tr, mask):
        for memory in (replay, naive):
            memory.add(tr)
            memory.cut(mask)

    transitions, _, _ = run(envs, np.random.default_rng(0), steps, envs.reset(), see, abandon=(31, 45, 47))
    assert all(len(logs) >= 2 for logs in naive.episodes)
    starts = naive.starts()
    assert set(np.flatnonzero(storage.startable(np.arange(3 * rows))).tolist()) == set(starts)
    resets = [log.obs[0] for log, t in starts.values() if t == 0]
    assert len(resets) >= (1 if rows < steps else 6)
    assert all(obs[-1].any() and not obs[:-1].any() for obs in resets)
    ids = np.array(sorted(starts))
    batch = replay.read(ids, np.ones(len(ids), np.float32))
    for b, i in enumerate(ids.tolist()):
        obs, _, reward, discount, next_obs = naive.read(*starts[i])
        assert np.array_equal(batch.obs[b].numpy(), obs)
        assert np.array_equal(batch.next_obs[b].numpy(), next_obs)
        assert batch.reward[b].item() == pytest.approx(reward, rel=1e-6)
        assert batch.discount[b].item() == pytest.approx(discount, rel=1e-6)
    lost = sum(int((tr.no_bootstrap & ~tr.terminated).sum()) for tr in transitions)
    assert lost > 5 if game == "breakout" else lost == 0


@pytest.mark.parametrize(("game", "max_frames", "steps"), [("pong", SHORT, 75), ("breakout", 108_000, 260)])
def test_the_last_observation_of_an_episode_continues_the_one_before_it(game, max_frames, steps):
    envs, ends = make(game, max_frames=max_frames), 0
    transitions, _, _ = run(envs, np.random.default_rng(0), steps, envs.reset())
    for tr in transitions:
        for i in np.flatnonzero(tr.ended):
            ends += 1
            np.testing.assert_array_equal(tr.next_obs[i][:-1], tr.obs[i][1:])
            assert tr.next_obs[i][-1].any()
    assert ends >= 2


@pytest.mark.parametrize("max_frames", [160, 162, 163])
def test_the_last_observation_of_a_truncated_episode_is_what_an_untruncated_one_shows_there(max_frames):
    short, long = make("breakout", max_frames=max_frames), make("breakout")
    rng, seen = np.random.default_rng(0), False
    short.reset()
    long.reset()
    while not seen:
        action = rng.integers(4, size=3)
        ours, theirs = [], []
        for envs, out in ((short, ours), (long, theirs)):
            envs.send(action)
            out.append(envs.recv())
        np.testing.assert_array_equal(ours[0].next_obs, theirs[0].next_obs)
        seen = ours[0].truncated.any()
    assert ours[0].truncated.all()
    assert not ours[0].terminated.any()


def test_observations_given_once_are_never_written_to_again():
    envs = make("breakout", max_frames=SHORT)
    obs, kept = envs.reset(), []
    kept.append((obs, obs.copy()))
    transitions, _, _ = run(
        envs, np.random.default_rng(0), 150, obs, lambda tr, _: kept.extend((a, a.copy()) for a in tr[:7])
    )
    for now, then in kept:
        np.testing.assert_array_equal(now, then)
    for before, after in pairwise(transitions):
        np.testing.assert_array_equal(after.obs[~before.ended], before.next_obs[~before.ended])


@pytest.mark.parametrize(("num_envs", "index", "threads"), [(1, 0, 1), (4, 3, 2)])
@pytest.mark.parametrize(("game", "max_frames"), [("pong", SHORT), ("breakout", 108_000)])
def test_an_episode_is_a_function_of_its_seed_and_actions_alone(game, max_frames, num_envs, index, threads):
    envs = make(game, max_frames=max_frames)
    steps, abandoned = 100 if max_frames == SHORT else 330, 13  # 13 % 3 = 1: environment 1 starts its second episode
    transitions, episodes, _ = run(envs, np.random.default_rng(0), steps, envs.reset(), abandon=(abandoned,))
    end = next(t for t, tr in enumerate(transitions) if tr.ended[1])
    second = transitions[abandoned + 1 : end + 1]
    episode = next(e for e in episodes if e.env == 1)
    assert [int(tr.action[1]) for tr in second] == episode.actions

    backend = AtariBackend(game, num_envs, sticky=0.25, max_frames=max_frames, threads=threads)
    rng, everywhere = np.random.default_rng(5), np.ones(num_envs, dtype=np.bool_)
    backend.reset(everywhere, [900 + i for i in range(num_envs)])
    for _ in range(int(rng.integers(3, 9))):  # a history of its own
        backend.send(rng.integers(backend.action_space.n, size=num_envs))
        backend.recv()
    here = np.arange(num_envs) == index
    obs = backend.reset(here, [episode.seed] * num_envs)
    np.testing.assert_array_equal(obs[index], second[0].obs[1])
    for tr in second:
        action = rng.integers(backend.action_space.n, size=num_envs)
        action[index] = tr.action[1]
        backend.send(action)
        step = backend.recv()
        np.testing.assert_array_equal(step.obs[index], tr.next_obs[1])
        for name in ("reward", "terminated", "truncated", "no_bootstrap"):
            assert getattr(step, name)[index] == getattr(tr, name)[1]
        ended = step.terminated | step.truncated
        if (ended & ~here).any():
            backend.reset(ended & ~here, rng.integers(1000, size=num_envs).tolist())
    assert ended[index]


@pytest.mark.parametrize(
    ("game", "max_frames", "steps"), [("pong", SHORT, 0), ("pong", SHORT, 60), ("breakout", 108_000, 100)]
)
def test_a_restored_instance_goes_on_bit_for_bit_in_the_middle_of_episodes(game, max_frames, steps):
    envs, other = (make(game, max_frames=max_frames, seed=4) for _ in range(2))
    _, _, obs = run(envs, np.random.default_rng(0), steps, envs.reset(), abandon=(13, 29))
    state = copy.deepcopy(envs.state_dict())
    assert not steps or len(set(state["length"].tolist())) > 1
    run(other, np.random.default_rng(8), 9, other.reset())  # whatever happened there before
    np.testing.assert_array_equal(other.load_state_dict(state), obs)
    assert not other.lost.any()
    ours, theirs = (run(e, np.random.default_rng(1), 75 if max_frames == SHORT else 140, obs) for e in (envs, other))
    assert_same_transitions(ours[0], theirs[0])
    assert ours[1] == theirs[1]
    assert ours[1]


def test_a_state_of_another_emulator_setting_is_flagged_as_lost():
    envs, other = make("breakout", seed=4), make("breakout", seed=4, sticky=0.0)
    run(envs, np.random.default_rng(0), 60, envs.reset())
    other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.lost.any()  # another may show the same by chance


def test_environments_and_episodes_and_run_seeds_all_differ_and_seed_zero_counts():
    def after(envs, obs):
        seen = [obs]
        for t in range(40):  # the same actions everywhere: sticky actions and no-ops make the difference
            envs.send(np.full(3, 2 + t // 3 % 2))
            seen.append(envs.recv().next_obs)
        return [np.stack([o[i] for o in seen]).tobytes() for i in range(3)]

    zero, again, one = (make("breakout", seed=seed) for seed in (0, 0, 1))
    first = after(zero, zero.reset())
    assert after(again, again.reset()) == first
    assert len({*first, *after(zero, zero.reset()), *after(one, one.reset())}) == 9


def test_an_episode_seed_of_zero_is_not_taken_for_no_seed():
    seen = []
    for _ in range(2):
        backend = AtariBackend("pong", 1, sticky=0.25, threads=1)
        for _ in range(2):
            seen.append([backend.reset(np.array([True]), [0])])
            for t in range(40):
                backend.send(np.array([t % 6]))
                seen[-1].append(backend.recv().obs)
    for other in seen[1:]:
        np.testing.assert_array_equal(seen[0], other)


def test_returns_and_lengths_are_right_and_rewards_raw():
    envs = make("ms_pacman", max_frames=SHORT)
    total, steps, seen, checked = np.zeros(3), np.zeros(3, int), set(), 0

    def see(tr, _):
        nonlocal checked
        total[:] += tr.reward
        steps[:] += 1
        assert tr.reward.dtype == np.float64
        seen.update(tr.reward.tolist())
        assert [e.env for e in envs.finished] == np.flatnonzero(tr.ended).tolist()
        for e in envs.finished:
            assert (e.total_reward, e.length) == (total[e.env], steps[e.env])
            total[e.env], steps[e.env] = 0, 0
            checked += 1

    run(envs, np.random.default_rng(0), 120, envs.reset(), see)
    assert checked == 3
    assert 10.0 in seen


def test_the_frame_limit_truncates_and_counts_frames_not_steps():
    for skip, max_frames, steps in [(4, 40, 10), (4, 41, 11), (2, 20, 10)]:
        envs = make("pong", 1, max_frames=max_frames, frame_skip=skip)
        transitions, episodes, _ = run(envs, np.random.default_rng(0), 2 * steps, envs.reset())
        assert [t + 1 for t, tr in enumerate(transitions) if tr.truncated.all()] == [steps, 2 * steps]
        assert not any(tr.terminated.any() for tr in transitions)
        assert [e.length for e in episodes] == [steps] * 2


def test_a_lost_life_is_reported_once_and_the_episode_goes_on():
    envs = make("breakout", 2)
    with_lives = AtariVectorEnv(  # another emulator with the same seeds, whose lives we count
        "breakout", 2, num_threads=1, repeat_action_probability=0.25, reward_clipping=False
    )
    rng, everywhere = np.random.default_rng(0), np.ones(2, dtype=np.bool_)
    envs.reset()
    lives = with_lives.reset(seed=np.array(envs._seeds()), options={"reset_mask": everywhere})[1]["lives"].copy()
    assert lives.tolist() == [5, 5]
    losses, ends = np.zeros(2, int), 0
    for _ in range(330):
        action = rng.integers(4, size=2)
        envs.send(action)
        tr = envs.recv()
        now = with_lives.step(action)[4]["lives"].copy()
        np.testing.assert_array_equal(tr.no_bootstrap, now < lives)
        np.testing.assert_array_equal(tr.terminated, now == 0)
        losses += tr.no_bootstrap
        lives = now
        if tr.ended.any():
            assert (losses[tr.ended] == 5).all()
            ends += int(tr.ended.sum())
            losses[tr.ended] = 0
            envs.reset(tr.ended)
            seeds = np.array(envs._seeds())[tr.ended]
            lives = with_lives.reset(seed=seeds, options={"reset_mask": tr.ended})[1]["lives"].copy()
    assert ends


def test_fire_is_pressed_after_each_lost_life():
    """Beside environments in which we press it: nobody else does here, so without it a game has no second life."""
    plain, envs = make("breakout", 2), make("breakout", 2, fire_each_life=True, render=True)
    np.testing.assert_array_equal(plain.reset(), envs.reset())
    rng, lost, lives = np.random.default_rng(0), np.zeros(2, dtype=np.bool_), 0
    for k in range(280):
        action = rng.integers(2, 4, size=2)
        plain.send(np.where(lost, 1, action))
        envs.send(action)
        wanted, tr = plain.recv(), envs.recv()
        assert_same_transitions([wanted._replace(action=action)], [tr])
        lost = wanted.no_bootstrap & ~wanted.ended
        lives += int(lost.sum())
        if k == 99:  # what was pressed is a function of seed and actions, so a resume presses it again
            np.testing.assert_array_equal(envs.load_state_dict(copy.deepcopy(envs.state_dict())), tr.next_obs)
            assert not envs.lost.any()
        if tr.ended.any():
            np.testing.assert_array_equal(plain.reset(tr.ended), envs.reset(tr.ended))
    assert lives > 8
    assert len(envs.backend.frames()) > 1000
    assert envs.backend.protocol == {**plain.backend.protocol, "fire_each_life": True}


def test_a_game_without_fire_is_played_without_it():
    plain, envs = make("freeway", 1), make("freeway", 1, fire_each_life=True)
    ours, theirs = (run(e, np.random.default_rng(0), 20, e.reset()) for e in (envs, plain))
    assert_same_transitions(ours[0], theirs[0])


def test_without_life_loss_no_life_is_reported():
    envs = make("breakout", 2, life_loss=False)
    transitions, episodes, _ = run(envs, np.random.default_rng(0), 250, envs.reset())
    assert episodes
    assert not any(tr.no_bootstrap.any() for tr in transitions)


@pytest.mark.parametrize(("game", "life_loss"), [("pong", True), ("breakout", True), ("breakout", False)])
def test_where_points_end_each_step_with_a_reward_is_reported_and_the_episode_goes_on(game, life_loss):
    plain, envs = (make(game, 2, life_loss=life_loss, **ends) for ends in ({}, {"point_ends": True}))
    (without, *_), (transitions, *_) = (run(e, np.random.default_rng(0), 250, e.reset()) for e in (plain, envs))
    scored = 0
    for tr, other in zip(transitions, without, strict=True):
        np.testing.assert_array_equal(tr.no_bootstrap, other.no_bootstrap | (other.reward != 0))
        assert_same_transitions([tr._replace(no_bootstrap=other.no_bootstrap)], [other])
        scored += int(((tr.reward != 0) & ~tr.ended).sum())
    assert scored > 1


@pytest.mark.parametrize(
    ("game", "skip", "max_frames", "steps"),
    [("pong", 4, SHORT, 75), ("breakout", 3, SHORT, 98), ("breakout", 4, 108_000, 260)],
)
def test_colour_frames_stay_in_step_with_what_the_agent_sees(game, skip, max_frames, steps):
    envs = make(game, 2, max_frames=max_frames, frame_skip=skip, render=True)
    coloured = AtariVectorEnv(
        game,
        2,
        num_threads=1,
        repeat_action_probability=0.25,
        frameskip=skip,
        stack_num=1,
        maxpool=False,
        grayscale=False,
        img_height=210,
        img_width=160,
        reward_clipping=False,
    )

    def reset(mask):
        envs.reset(mask)
        seeds = np.array(envs._seeds())[mask]
        return coloured.reset(seed=seeds, options={"reset_mask": mask})[0]

    rng = np.random.default_rng(0)
    theirs = reset(np.ones(2, dtype=np.bool_))
    frames = envs.backend.frames()
    assert len(frames) == 1
    np.testing.assert_array_equal(frames[0], theirs[0, 0])
    resets = 0
    for k in range(steps):
        action = rng.integers(envs.action_space.n, size=2)
        envs.send(action)
        tr = envs.recv()
        theirs, _, terminated, _, _ = coloured.step(action)
        np.testing.assert_array_equal(tr.terminated, terminated)
        frames = envs.backend.frames()
        assert 1 <= len(frames) <= skip
        assert all(f.shape == (210, 160, 3) and f.dtype == np.uint8 for f in frames)
        if not terminated[0]:  # where a game is over, ale-py stops in the middle of a step and shows an older screen
            assert len(frames) == skip
            np.testing.assert_array_equal(frames[-1], theirs[0, 0])
        mask = tr.ended | np.array([False, k == 25])
        if mask.any():
            theirs = reset(mask)
            frames = envs.backend.frames()
            assert len(frames) == int(mask[0])  # the resets of other environments are not shown
            assert all(np.array_equal(f, theirs[0, 0]) for f in frames)
            resets += int(mask[0])
    assert resets


def test_drawing_frames_does_not_touch_the_episode_and_frames_given_do_not_change():
    plain, drawn = make("pong", 1, max_frames=SHORT), make("pong", 1, max_frames=SHORT, render=True)
    obs = plain.reset()
    np.testing.assert_array_equal(drawn.reset(), obs)
    ours, theirs = (run(e, np.random.default_rng(0), 80, obs) for e in (plain, drawn))
    assert_same_transitions(ours[0], theirs[0])
    assert plain.backend.frames() == []
    frames = drawn.backend.frames()
    assert drawn.backend.frames() == []
    kept = [f.copy() for f in frames]
    run(drawn, np.random.default_rng(0), 5, theirs[2])
    np.testing.assert_array_equal(frames, kept)
    assert len({f.tobytes() for f in frames}) > len(frames) // 2


@pytest.mark.parametrize("wrong", [-1, 6, 17])
def test_an_action_out_of_range_raises_before_the_emulator_sees_it(wrong):
    envs = make("pong", 2)
    envs.reset()
    with pytest.raises(ValueError, match="actions must be in"):
        envs.backend.send(np.array([0, wrong]))
    envs.send(np.array([0, 5]))  # still alive
    envs.recv()


def test_the_full_action_space_has_eighteen_actions():
    assert make("pong", 1).action_space.n == 6
    assert make("pong", 1, full_action_space=True).action_space.n == 18


def test_observations_have_the_shape_asked_for():
    envs = make("pong", 2, stack=3, screen_size=42)
    obs = envs.reset()
    assert obs.shape == (2, 3, 42, 42)
    assert envs.observation_space.shape == (3, 42, 42)
    assert envs.stack == 3
    assert obs.dtype == np.uint8


def test_what_a_reader_of_a_score_must_know_is_told():
    assert make("pong", 1, max_frames=SHORT).backend.protocol == {
        "sticky": 0.25,
        "frame_skip": 4,
        "noop_max": 30,
        "max_frames": SHORT,
    }


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("MsPacman", "ms_pacman"), ("Pong", "pong"), ("breakuot", "breakout"), ("space-invaders", "space_invaders")],
)
def test_an_unknown_game_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(UserError, match=r"env\.game") as e:
        AtariBackend(wrong)
    assert wrong in str(e.value)
    assert f"did you mean {right}?" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_game_like_no_other_is_answered_with_all_there_are():
    with pytest.raises(UserError, match=r"env\.game.*known: .*pong.*zaxxon") as e:
        AtariBackend("0123456789")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sticky", 1.0),
        ("sticky", -0.1),
        ("sticky", 25),
        ("frame_skip", 0),
        ("stack", 0),
        ("screen_size", -1),
        ("max_frames", 0),
    ],
)
def test_numbers_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=rf"env\.{key}"):
        AtariBackend("pong", **{key: value})


def test_an_episode_that_ends_at_the_frame_limit_is_terminated_and_not_truncated() -> None:
    def played(max_frames):
        envs = make("breakout", 1, max_frames=max_frames)
        transitions, episodes, _ = run(envs, np.random.default_rng(0), 300, envs.reset())
        return transitions, episodes[0].length

    length = played(108_000)[1]
    transitions, same = played(4 * length)
    assert same == length
    assert transitions[length - 1].terminated.all()
    assert not transitions[length - 1].truncated.any()
