"""What an agent takes of another one's weights."""

from typing import Any

import pytest
import torch

from rl_runner.run.weights import Taken, load_agent_state, take_weights, weights_of


class Table:
    """An agent with a table and a count, and something that only learning needs."""

    def __init__(self, **arrays: Any) -> None:
        self.arrays, self.loaded = arrays, 0

    def weights(self) -> dict[str, Any]:
        return {"online": dict(self.arrays), "kind": "table"}

    def load_weights(self, state: dict[str, Any]) -> None:
        self.arrays, self.loaded = dict(state["online"]), self.loaded + 1

    def state_dict(self) -> dict[str, Any]:
        return {**self.weights(), "optimizer": torch.ones(5)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert "optimizer" in state
        self.load_weights(state)


def test_what_has_the_same_name_and_shape_is_taken() -> None:
    source = Table(**{"torso.weight": torch.full((4, 3), 7.0), "head.weight": torch.ones(6, 4), "old": torch.ones(2)})
    agent = Table(**{"torso.weight": torch.zeros(4, 3), "head.weight": torch.zeros(2, 4), "new": torch.zeros(2)})
    taken = take_weights(agent, source.state_dict())
    assert taken.names == ["online/torso.weight"]
    assert str(taken) == f"1 of 4 arrays; not taken: {', '.join(taken.missing)}"
    wanted = ["online/head.weight (2×4, there 6×4)", "online/new (2, not there)", "online/old (2, not here)"]
    assert taken.missing == wanted
    assert torch.equal(agent.arrays["torso.weight"], source.arrays["torso.weight"])
    assert not agent.arrays["head.weight"].any()
    assert agent.weights()["kind"] == "table"


def test_nothing_fits_and_nothing_is_loaded() -> None:
    agent = Table(w=torch.zeros(2))
    taken = take_weights(agent, Table(w=torch.ones(3), v=torch.ones(2)).state_dict())
    assert (taken.names, taken.missing, agent.loaded) == ([], ["online/w (2, there 3)", "online/v (2, not here)"], 0)


@pytest.mark.parametrize("fits", [True, False])
def test_a_count_is_taken_with_what_it_counts(fits: bool) -> None:
    source = Table(**{"norm.mean": torch.ones(3), "norm.count": torch.tensor(50.0), "other.count": torch.tensor(5.0)})
    agent = Table(
        **{"norm.mean": torch.zeros(3 if fits else 4), "norm.count": torch.zeros(()), "other.count": torch.zeros(())}
    )
    take_weights(agent, source.state_dict())
    assert agent.arrays["norm.count"].item() == (50.0 if fits else 0.0)
    assert agent.arrays["other.count"].item() == 5.0


def test_a_long_list_is_cut() -> None:
    taken = Taken(["a"], [f"b{i}" for i in range(9)])
    assert str(taken) == "1 of 10 arrays; not taken: b0, b1, b2, b3 and 5 more"
    assert str(Taken(["a"], [])) == "1 of 1 arrays"


def test_weights_alone_or_the_whole_agent() -> None:
    source = Table(w=torch.ones(2))
    state, about = weights_of(source)  # type: ignore[arg-type]
    assert "optimizer" not in state["agent"]
    agent = Table(w=torch.zeros(2))
    load_agent_state(agent, state["agent"], about)  # type: ignore[arg-type]
    assert torch.equal(agent.arrays["w"], torch.ones(2))
    load_agent_state(agent, Table(w=torch.full((2,), 3.0)).state_dict(), {})  # type: ignore[arg-type]
    assert torch.equal(agent.arrays["w"], torch.full((2,), 3.0))
    with pytest.raises(TypeError, match="object takes no weights alone"):
        load_agent_state(object(), state["agent"], about)  # type: ignore[arg-type]
