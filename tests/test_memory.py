"""What cannot fit is refused with both numbers, before it is allocated."""

import pytest

from rl_runner import memory
from rl_runner.networks.layers import FullyConnected
from rl_runner.types import UserError


@pytest.fixture
def one_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)


@pytest.mark.usefixtures("one_gigabyte")
def test_more_than_is_free_is_refused_with_both_numbers() -> None:
    memory.require("env: a large world", 940_000_000, "make it smaller")
    with pytest.raises(UserError, match=r"^env: a large world takes 2\.50 GB, but 1\.00 GB .* free; make it smaller$"):
        memory.require("env: a large world", 2_500_000_000, "make it smaller")


def test_where_free_memory_is_unknown_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    memory.require("env: a large world", 10**18, "make it smaller")


@pytest.mark.usefixtures("one_gigabyte")
def test_a_table_takes_8_bytes_a_value_twice() -> None:
    memory.require_for_table(10_000_000, 5)  # 0.8 GB
    with pytest.raises(UserError, match=r"1,000,000,000 states × 2 actions.* takes 32\.00 GB, but 1\.00 GB"):
        memory.require_for_table(10**9, 2)


@pytest.mark.usefixtures("one_gigabyte")
def test_a_first_layer_takes_4_bytes_a_weight_five_times() -> None:
    memory.require_for_inputs(180_000, 256)  # 0.92 GB
    with pytest.raises(UserError, match=r"1,000,000 inputs × 256 units.* takes 5\.12 GB, but 1\.00 GB"):
        memory.require_for_inputs(1_000_000, 256)


@pytest.mark.usefixtures("one_gigabyte")
def test_a_hidden_layer_takes_4_bytes_a_weight_once() -> None:
    memory.require_for_layer(100_000, 2_000)  # 0.8 GB
    line = r"^network: a layer of 256 inputs × 1,000,000 units takes 1\.02 GB, .*; use fewer units, or smaller obs"
    with pytest.raises(UserError, match=line):
        FullyConnected((256, 1_000_000)).build(4)


def test_free_memory_is_a_number_or_unknown() -> None:
    free = memory.free_memory()
    assert free is None or 0 < free < 2**50
