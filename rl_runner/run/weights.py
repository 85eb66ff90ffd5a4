"""An agent's weights alone: what acting needs, without what only learning needs."""

from __future__ import annotations

from rl_runner.types import Agent, HasWeights, State


def weights_of(agent: Agent) -> tuple[State, State]:
    """Return what a snapshot holds of an agent, and what its manifest says of that.

    An agent that cannot tell its weights from the rest is kept whole.
    """
    if isinstance(agent, HasWeights):
        return {"agent": agent.weights()}, {"weights_only": True}
    return {"agent": agent.state_dict()}, {"weights_only": False}


def load_agent_state(agent: Agent, state: State, about: State) -> None:
    """Restore an agent from a checkpoint's `agent` component, whole or its weights alone.

    Raises:
        TypeError: the checkpoint holds weights alone, which this agent does not take.
    """
    if not about.get("weights_only"):
        agent.load_state_dict(state)
    elif isinstance(agent, HasWeights):
        agent.load_weights(state)
    else:
        raise TypeError(f"{type(agent).__name__} takes no weights alone")
