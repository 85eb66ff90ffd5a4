"""Small environments as users bring them. `test_awkward.py` says what becomes of each.

Unlike a test's own classes they are registered, so that processes and whole commands find them.
"""

import os
import random
import threading
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space


class Base(gym.Env):
    """Ten steps of reward 1. Everything below changes one thing."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space, action_space = Box(-1, 1, (3,), np.float32), Discrete(2)
    steps = 10

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def observe(self):
        return np.zeros(3, np.float32)

    def reward(self, action):
        return 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), self.reward(action), self.t >= self.steps, False, {}

    def render(self):
        return np.zeros((40, 60, 3), np.uint8)


class Acted(Base):
    """Refuses actions that are not in its space."""

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action)


class Knobs(Acted):
    """Two knobs, numbered from 1."""

    action_space = MultiDiscrete([2, 3], start=[1, 1])


class Buttons(Acted):
    """Four buttons, each pressed or not."""

    action_space = MultiBinary(4)


class Levers(Acted):
    """Two levers that never stand at 0."""

    action_space = Box(1, 3, (2,), np.float32)


class Orders(Acted):
    """A Dict of actions."""

    action_space = Dict({"where": Discrete(2)})


class Unsendable(Base):
    """In its third step, an exception that cannot be sent to another process."""

    class Broken(Exception):
        def __init__(self, part, lock):
            super().__init__(f"{part} is broken")
            self.lock = lock

    def reward(self, action):
        if self.t == 3:
            raise self.Broken("an arm", threading.Lock())
        return 1.0


class SecondFails(Base):
    """Can be made in one process only."""

    made_in: ClassVar = []

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.made_in.append(os.getpid())
        if self.made_in[0] != os.getpid():
            raise OSError("port 5000 is taken")


class Flags(Base):
    """16 one-hot flags as uint8 in {0, 1}. The best action is the parity of the flag's number; 20 in all."""

    observation_space, steps = Box(0, 1, (16,), np.uint8), 20

    def observe(self):
        self.s = int(self.np_random.integers(16))
        return np.eye(16, dtype=np.uint8)[self.s]

    def step(self, action):
        reward = float(action == bin(self.s).count("1") % 2)
        self.t += 1
        return self.observe(), reward, self.t >= self.steps, False, {}


class NaNOnce(Base):
    """One NaN reward, in the first evaluation."""

    count = 0

    def reward(self, action):
        NaNOnce.count += 1
        return float("nan") if NaNOnce.count == 105 else 1.0


class NaNReward(Base):
    """NaN rewards."""

    def reward(self, action):
        return float("nan")


class InfiniteObs(Base):
    """Observations that are not finite."""

    def observe(self):
        return np.array([0, np.inf, 0], np.float32)


class NoReward(Base):
    """`return reward` was forgotten."""

    def reward(self, action):
        pass


class ArrayReward(Base):
    """A reward of shape (1,)."""

    def reward(self, action):
        return np.array([1.0])


class WrongShape(Base):
    """Observations of another shape than the space says."""

    def observe(self):
        return np.zeros(4, np.float32)


class OutOfRange(Base):
    """Shows -1 where Discrete(5) has no such state."""

    observation_space = Discrete(5)

    def observe(self):
        return -1


class OwnRandomness(Base):
    """Draws from Python's own generator, so (seed, actions) do not play it again."""

    def reward(self, action):
        return random.random()


class OwnRandomLength(OwnRandomness):
    """Its episodes end elsewhere when they are played again."""

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, random.random() < 0.1, False, {}


class FloatFrames(Base):
    """render returns floats in [0, 1]."""

    def render(self):
        return np.zeros((40, 60, 3))


class NoPicture(Base):
    """No rgb_array among its render modes."""

    metadata: ClassVar = {"render_modes": []}


class Words(Space):
    """A space of its own that nothing can flatten."""

    def __init__(self):
        super().__init__((), str)

    def sample(self, mask=None, probability=None):
        return "go"

    def contains(self, x):
        return isinstance(x, str)


class Mission(Base):
    """A Dict with a part that cannot be flattened into numbers, as MiniGrid's mission."""

    observation_space = Dict(image=Box(0, 255, (7, 7, 3), np.uint8), mission=Words())

    def observe(self):
        return {"image": np.zeros((7, 7, 3), np.uint8), "mission": "go"}


class OldStep(Base):
    """The old interface, four values from step."""

    def step(self, action):
        return super().step(action)[:4]


class OldReset(Base):
    """The old interface, reset() without a seed."""

    def reset(self):
        self.t = 0
        return self.observe()


class Dies(Base):
    """Its process dies in mid-episode."""

    def step(self, action):
        if self.np_random.random() < 0.01:
            os._exit(7)
        return super().step(action)


class ManyStates(Base):
    """A thousand million states."""

    observation_space = Discrete(10**9)

    def observe(self):
        return 0


class MirrorLake(gym.ActionWrapper):
    """FrozenLake behind a wrapper that changes what actions do: its table of dynamics is not what is played."""

    def action(self, action):
        return 3 - action


class Drifting(Base):
    """Shows how often it was reset or stepped in its life: a state of its own that no seed brings back."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.life = 0

    def observe(self):
        self.life += 1
        return np.array([np.sin(self.life), 0, 0], np.float32)


class Walk(Base):
    """A walk of ten steps whose observations have a scale of their own; going right is worth its distance."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.x = 0
        return self.observe(), info

    def observe(self):
        return np.array([1000.0 + 50.0 * getattr(self, "x", 0)])

    def reward(self, action):
        self.x += 1 if action else -1
        return float(self.x > 0)


class Colours(Base):
    """Small pictures in colour that change with each step."""

    def __init__(self, size=10, render_mode=None):
        super().__init__(render_mode)
        self.observation_space = Box(0, 255, (size, size, 3), np.uint8)

    def observe(self):
        return np.full(self.observation_space.shape, (10 * self.t, self.np_random.integers(200), 5), np.uint8)


def times_ten(reward):
    return 10 * reward


def scaled_lake(**kwargs):
    """Return FrozenLake with ten times its rewards, which its table does not know of."""
    return gym.wrappers.TransformReward(gym.make("FrozenLake-v1", **kwargs), times_ten)


for kind in list(globals().values()):
    if isinstance(kind, type) and issubclass(kind, Base) and kind is not Base:
        gym.register(f"{kind.__name__}-v0", kind)
gym.register(
    "MirrorLake-v0",
    lambda render_mode=None: MirrorLake(gym.make("FrozenLake-v1", is_slippery=False, render_mode=render_mode)),
)
gym.register("NormalizedWalk-v0", lambda render_mode=None: gym.wrappers.NormalizeObservation(Walk(render_mode)))
gym.register(
    "ScaledLake-v0", lambda render_mode=None: gym.wrappers.TransformReward(gym.make("FrozenLake-v1"), times_ten)
)
