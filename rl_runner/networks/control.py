"""The networks of an agent with an actor and critics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rl_runner.networks.critics import Critic
from rl_runner.networks.inputs import Normalizer, flat_input, in_words, looks_like_image
from rl_runner.networks.layers import FullyConnected, in_precision, stream, xavier
from rl_runner.networks.qnetwork import INITS
from rl_runner.networks.renorm import ALL
from rl_runner.networks.torsos import auto
from rl_runner.types import UserError


class Encoder(nn.Module):
    """Vectors as they are, for layers that also see the action; images through the convolutions that fit their size.

    Args:
        space: of one observation.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        if looks_like_image(space):
            self.layers = auto(space)
            self.reads = str(self.layers.reads)
        else:
            self.layers, _ = flat_input(space)
            self.reads = in_words(space)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, F)."""
        features: Tensor = self.layers(obs)
        return features


class ControlNetwork(nn.Module):
    """An actor and K critics. The critics share a torso; the actor has one of its own, or shares theirs.

    Args:
        observation_space: of one observation.
        actions: D, numbers of one action; with `discrete`: A, the number of actions.
        outputs_per_action: M, numbers per value.
        torso: makes a torso from the observation space. The action joins its features, or the outputs of the hidden
            layers that it declares.
        actor: makes the actor from (features, actions, fc, init, last_layer).
        hidden: sizes of the hidden layers of the actor and of each critic, after the torso.
        critics: K.
        activation: of the hidden layers.
        layer_norm: LayerNorm between each hidden layer and its activation.
        init: "default" (torch's) or "xavier" (uniform weights, zero biases).
        actor_last_layer: the actor's output layer starts uniform in [-x, x]; None: as `init` says.
        critic_last_layer: the same of the critics.
        precision: "fp32", or "bf16": the torsos compute in bfloat16, all else in float32.
        normalize: normalise observations by their running mean and standard deviation.
        shared_encoder: the actor reads the critics' torso, which only the critics' loss changes (Yarats et al. 2021).
        discrete: actions are discrete; the critics do not read one, but return the values of all.
        batch_norm: `BatchRenorm` before each layer of actor and critics, after the torso (Bhatt et al. 2024).
        critic_hidden: sizes of the hidden layers of each critic; None: `hidden`.

    Attributes:
        normalizer: running statistics of observations, to be updated with each new one; None: not normalised.

    Raises:
        UserError: the parts do not fit each other or the observations.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        actions: int,
        outputs_per_action: int,
        torso: Callable[[gym.Space[Any]], nn.Module],
        actor: Callable[..., nn.Module],
        hidden: Sequence[int] = (256, 256),
        critics: int = 1,
        activation: str = "relu",
        layer_norm: bool = False,
        init: str = "default",
        actor_last_layer: float | None = None,
        critic_last_layer: float | None = None,
        precision: str = "fp32",
        normalize: bool = False,
        shared_encoder: bool = False,
        discrete: bool = False,
        batch_norm: bool = False,
        critic_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if critics < 1:
            raise UserError(f"network.critics: must be 1 or more, got {critics}")
        for key, bound in [("actor_last_layer", actor_last_layer), ("critic_last_layer", critic_last_layer)]:
            if bound is not None and not bound > 0:
                raise UserError(f"network.{key}: must be above 0, or null, got {bound}")
        if init not in INITS:
            raise UserError(f"network.init: must be one of {', '.join(INITS)}, got {init!r}")
        self.precision, self._hidden = precision, tuple(hidden)
        self.normalizer = Normalizer(observation_space) if normalize else None
        space = self.normalizer.space if self.normalizer else observation_space
        fc = FullyConnected(tuple(hidden), activation, layer_norm, batch_norm)
        of_critic = fc if critic_hidden is None else replace(fc, sizes=tuple(critic_hidden))
        self.critic: Critics | DiscreteCritics
        self.actor: Actor | SharedActor
        own = () if shared_encoder else stream(torso, space)[0]  # a torso and hidden layers
        of_critics, features = stream(torso, space)
        if init == "xavier":
            for made in (*own, *of_critics):
                made.apply(xavier)
        head = actor(features, actions, fc, init, actor_last_layer)
        read, returned = (0, actions * outputs_per_action) if discrete else (actions, outputs_per_action)
        critic = Critic(features, read, of_critic, returned, critics, init, critic_last_layer)
        if discrete:
            self.critic = DiscreteCritics(*of_critics, critic, precision, actions)
        else:
            self.critic = Critics(*of_critics, critic, precision)
        self.actor = Actor(*own, head, precision) if own else SharedActor(self.critic, head)

    @property
    def torso(self) -> nn.Module:
        """The actor's torso."""
        torso: nn.Module = self.actor.torso
        return torso

    def normalized(self, obs: Tensor) -> Tensor:
        """Return observations (B, *O) as actor and critics read them."""
        return obs if self.normalizer is None else self.normalizer(obs)

    def in_words(self) -> str:
        """Return a description for the start of a run."""
        head, critic = self.actor.head, self.critic.head
        torso, layers = type(self.torso).__name__, " + ".join(map(str, self._hidden)) or "no hidden layers"
        kind = getattr(head, "name", type(head).__name__)
        torso += " (shared)" if isinstance(self.actor, SharedActor) else ""
        other = "" if critic.sizes == self._hidden else f" of {' + '.join(map(str, critic.sizes)) or 'no'} units"
        return f"{torso}, then {layers} units; actor ({kind}) and {critic.members} critic(s){other}"


class Stream(nn.Module):
    """A torso, the hidden layers that it declares, and a head."""

    def __init__(self, torso: nn.Module, hidden: nn.Module, head: nn.Module, precision: str) -> None:
        super().__init__()
        self.torso, self.hidden, self.head, self.precision = torso, hidden, head, precision

    def features(self, obs: Tensor) -> Tensor:
        """(B, *O) -> what the head reads of observations (B, F)."""
        features: Tensor = self.hidden(in_precision(self.torso, obs, self.precision))
        return features


class Actor(Stream):
    """An actor on a torso of its own."""

    def forward(self, obs: Tensor) -> Any:
        """(B, *O) -> what the actor returns."""
        return self.head(self.features(obs))


class SharedActor(nn.Module):
    """An actor on the critics' torso. Its loss does not change the torso, whose parameters are the critics' alone."""

    def __init__(self, values: Stream, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self._values = (values,)  # in a tuple: not a part of this module

    @property
    def torso(self) -> nn.Module:
        """The critics' torso."""
        return self._values[0].torso

    def forward(self, obs: Tensor) -> Any:
        """(B, *O) -> what the actor returns."""
        with torch.no_grad():
            features = self._values[0].features(obs)
        return self.head(features)


class Critics(Stream):
    """Critics on a torso."""

    head: Critic

    def forward(self, obs: Tensor, action: Tensor, members: slice = ALL) -> Tensor:
        """(B, *O), actions (B, D) in [-1, 1] -> (K, B, M)."""
        values: Tensor = self.head(self.features(obs), action, members)
        return values


class DiscreteCritics(Stream):
    """Critics on a torso that return the values of all of A discrete actions."""

    head: Critic

    def __init__(self, torso: nn.Module, hidden: nn.Module, head: Critic, precision: str, actions: int) -> None:
        super().__init__(torso, hidden, head, precision)
        self.actions = actions

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (K, B, A, M)."""
        features = self.features(obs)
        no_action = features[:, :0]  # (B, 0): these critics take no action as input
        values: Tensor = self.head(features, no_action)
        every: Tensor = values.unflatten(2, (self.actions, -1))
        return every
