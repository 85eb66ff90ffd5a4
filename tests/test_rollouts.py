"""Rollouts as rows: their order, the values of successors, and shuffled batches."""

import numpy as np
import pytest
import torch

from rl_runner.rollouts import ends_of, minibatches, next_values, on_host, on_rows, rows_of
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
