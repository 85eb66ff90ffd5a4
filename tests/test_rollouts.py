"""Rollouts as rows: their order, the values of successors, and shuffled batches."""

import numpy as np
import pytest
import torch

from rl_runner.rollouts import ends_of, memories, minibatches, next_values, on_host, on_rows, rows_of, sequences
from rl_runner.types import Carry
from tests.agents.rollouts import rollout

CPU = torch.device("cpu")


def test_rows_are_in_the_order_of_steps_then_of_environments() -> None:
    seen = rollout([0, 1], [0, 1], [0, 0], [0, 0])
    both = seen._replace(
        obs=np.array([[0, 10], [1, 11]]),
        action=np.array([[0, 1], [1, 0]]),
        action_mask=np.array([[[1, 1], [0, 1]], [[1, 0], [1, 1]]], dtype=bool),
    )
    rows = rows_of(both, CPU)
    assert rows.obs.tolist() == [0, 10, 1, 11]
    assert rows.action.tolist() == [0, 1, 1, 0]
    assert rows.action_mask is not None
    assert rows.action_mask.int().tolist() == [[1, 1], [0, 1], [1, 0], [1, 1]]
    some = rows.of(torch.tensor([3, 0]))
    assert (some.obs.tolist(), some.action_mask[0].tolist()) == ([11, 0], [True, True])
    assert rows_of(seen, CPU).of(torch.tensor([0])).action_mask is None
    numbers = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert on_rows(numbers, CPU).tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(on_host(on_rows(numbers, CPU)).reshape(2, 2), numbers)


def test_values_of_successors_are_those_of_the_next_row_but_at_ends() -> None:
    """Three steps; the first one cuts an episode short in state 7, and the last one leads to state 5."""
    seen = rollout([0, 1, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], last_obs=[5], cut=[0], cut_obs=[7])
    obs, mask = ends_of(seen, CPU)
    assert (obs.tolist(), mask) == ([5, 7], None)
    after = next_values(seen, np.array([[0.0], [10.0], [20.0]]), on_host(obs * 10.0))
    np.testing.assert_array_equal(after, [[70.0], [20.0], [50.0]])


def test_each_epoch_takes_each_row_once() -> None:
    batches = list(minibatches(10, 4, 3, CPU))
    assert [len(b) for b in batches] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(torch.cat(batches[3 * epoch : 3 * epoch + 3]).tolist()) == list(range(10))
    assert batches[0].tolist() != batches[3].tolist()


@pytest.mark.parametrize(("rows", "wanted"), [(9, [4, 5]), (5, [5]), (1, [1]), (4, [4])])
def test_a_single_row_that_is_left_over_joins_the_batch_before_it(rows: int, wanted: list[int]) -> None:
    batches = list(minibatches(rows, 4, 1, CPU))
    assert [len(b) for b in batches] == wanted
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))


def test_each_epoch_takes_each_sequence_once() -> None:
    """Rows of 6 steps of 3 environments, in sequences of 2 steps: row t * 3 + i is step t of environment i."""
    batches = list(sequences(6, 3, 2, 9, 2, CPU))
    assert [tuple(b.shape) for b in batches] == [(2, 4), (2, 4), (2, 1)] * 2
    assert [b.numel() for b in sequences(8, 1, 4, 7, 1, CPU)] == [4, 4]
    assert [b.numel() for b in sequences(5, 1, 1, 2, 1, CPU)] == [2, 3]  # a single row joins others
    for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
        pairs = [(int(first), int(second)) for b in epoch for first, second in b.T]
        wanted = [(t * 3 + i, (t + 1) * 3 + i) for t in (0, 2, 4) for i in range(3)]
        assert sorted(pairs) == wanted
    assert batches[0].tolist() != batches[len(batches) // 2].tolist()


def test_rows_of_sequences() -> None:
    """Rows are taken step by step, with the memory before each of them."""
    rows = rows_of(rollout([0, 1, 2, 3], [0, 0, 0, 0], [0] * 4, [0] * 4), CPU)
    rows = rows._replace(
        memory=torch.arange(4.0)[:, None], begins=torch.tensor([True, False, False, True]), sequences=1
    )
    some = rows.of(torch.tensor([[2, 0], [3, 1]]))
    assert some.obs.tolist() == [2, 0, 3, 1]
    assert (some.memory[:, 0].tolist(), some.begins.tolist(), some.sequences) == (
        [2, 0, 3, 1],
        [False, True, True, False],
        2,
    )


def test_memories_of_carries() -> None:
    """Before the first step nothing is remembered, and every environment begins an episode."""
    carry = Carry({"memory": torch.tensor([[1.0], [2.0]])}, np.array([False, True]))
    memory, begins = memories([None, carry], 2, 1, CPU)
    assert memory[..., 0].tolist() == [[0, 0], [1, 2]]
    assert begins.tolist() == [[True, True], [False, True]]
