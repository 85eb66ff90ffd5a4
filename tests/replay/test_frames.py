"""Frames on the device are those on the host: the same histories, read, saved and loaded both ways."""

from __future__ import annotations

import copy
import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_runner import memory
from rl_runner.replay.frames import DeviceFrames, HostFrames
from rl_runner.replay.storage import RowStorage
from rl_runner.types import UserError
from tests.replay.oracle import World, random_script
from tests.replay.test_storage import storage_for

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def storages(world: World, rows: int, device: str) -> tuple[RowStorage, RowStorage]:
    """Return two, the second with its frames as a device has them."""
    both = [storage_for(world, rows) for _ in range(2)]
    both[1].frames = DeviceFrames(both[0].frames.shape, both[0].frames.dtype, torch.device(device))
    return both[0], both[1]


def add(world: World, outcomes, *storages: RowStorage) -> None:
    tr, cut = world.step(outcomes)
    for storage in storages:
        storage.add(tr)
        storage.cut(cut)


def same(host: RowStorage, device: RowStorage) -> None:
    ids = np.arange(host.rows * host.num_envs)
    ids = ids[host.startable(ids)]
    ids = np.random.default_rng(0).permutation(ids)
    there = device.obs(ids)
    assert isinstance(there, torch.Tensor)
    np.testing.assert_array_equal(there.cpu().numpy(), host.obs(ids))
    assert there.cpu().numpy().dtype == host.obs(ids).dtype


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(["frames", "vector", "discrete"]),
    num_envs=st.integers(1, 3),
    stack=st.integers(1, 4),
    extra=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_what_is_read_is_what_the_host_would_give(device, kind, num_envs, stack, extra, seed):
    world = World(num_envs, stack if kind == "frames" else 1, kind)
    host, there = storages(world, stack + 1 + extra, device)
    for outcomes in random_script(seed, 40, num_envs):
        add(world, outcomes, host, there)
        same(host, there)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [5, 90])  # the ring of 20 has not, or has, gone round
def test_frames_saved_on_one_side_go_on_at_the_other(device, steps):
    world = World(num_envs=2, stack=3)
    host, there = storages(world, 20, device)
    for outcomes in random_script(1, steps, 2):
        add(world, outcomes, host, there)
    states = copy.deepcopy((host.state_dict(), there.state_dict()))
    np.testing.assert_array_equal(states[0]["rows"]["frame"], states[1]["rows"]["frame"])
    new_host, new_there = storages(world, 20, device)
    new_host.load_state_dict(states[1])
    new_there.load_state_dict(states[0])
    for outcomes in random_script(2, 30, 2):
        add(world, outcomes, host, new_host, new_there)
        same(host, new_there)
        same(new_host, new_there)


@pytest.mark.parametrize("device", DEVICES)
def test_both_say_alike_what_they_hold(device):
    shape = (10, 2, 84, 84)
    host, there = HostFrames(shape, np.uint8), DeviceFrames(shape, np.uint8, torch.device(device))
    assert host.nbytes == there.nbytes == 10 * 2 * 84 * 84
    assert host.shape == there.shape == shape
    assert host.dtype == there.dtype == np.uint8
    assert not there.first(10).any()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_frames_beyond_the_memory_take_only_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the machine's memory, which Linux refuses by default unless it is asked not to reserve it."""
    rows = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10**6
    frames = HostFrames((rows, 1, 1000, 1000), np.uint8)
    before = memory.resident()
    one = np.array([rows - 1]), np.array([0])
    frames.put(*one, np.full((1, 1000, 1000), 7, np.uint8))
    assert (frames.take(*one) == 7).all()
    assert not frames.take(one[0] - 1, one[1]).any()
    assert frames.nbytes == rows * 10**6
    assert memory.resident() - before < 50e6


def test_frames_that_cannot_be_addressed_are_refused() -> None:
    for capacity in (10**12, 10**25):
        with pytest.raises(UserError, match=rf"^replay.capacity: {capacity:,} rows are more than can be addressed"):
            RowStorage(capacity, 1, (1000, 1000), np.uint8)
