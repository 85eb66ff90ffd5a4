"""The whole network: every torso with every head and observation, its sizes and its first weights."""

import math
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor, nn

from rl_runner.networks.heads import Dueling, SingleStream
from rl_runner.networks.layers import NoisyLinear
from rl_runner.networks.qnetwork import QNetwork
from rl_runner.networks.torsos import MLP, Conv3x3, NatureCNN, NipsCNN, auto
from rl_runner.types import UserError

VECTOR = Box(-1, 1, (4,), np.float32)
ATARI = Box(0, 255, (4, 84, 84), np.uint8)
SMALL = Box(0, 255, (2, 40, 40), np.uint8)
FLAT = [VECTOR, Discrete(6), Discrete(3, start=7), MultiDiscrete([3, 2], start=[1, 0]), MultiBinary(5)]
IMAGES = [SMALL, Box(0, 255, (40, 44, 3), np.uint8), Box(0, 255, (96, 96, 3), np.uint8)]
TORSOS = [*[(MLP, s) for s in FLAT + IMAGES], *[(t, s) for t in (NatureCNN, NipsCNN, Conv3x3, auto) for s in IMAGES]]
HEADS = [SingleStream, Dueling, partial(SingleStream, noisy=True), partial(Dueling, noisy=True)]
HEAD_IDS = ["linear", "dueling", "noisy", "dueling-noisy"]


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def samples(space: gym.Space[Any], n: int = 3) -> Tensor:
    space.seed(0)
    return torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(n)]))


@pytest.mark.parametrize("head", HEADS, ids=HEAD_IDS)
@pytest.mark.parametrize(("torso", "space"), TORSOS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_every_combination(torso: Any, space: gym.Space[Any], head: Any) -> None:
    net = QNetwork(space, 5, 2, 0, torso, head, hidden=(8,))
    obs = samples(space)
    before = obs.clone()
    q = net(obs)
    assert q.shape == (3, 5, 2)
    assert q.isfinite().all()
    assert torch.equal(obs, before)
    q.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("head", HEADS, ids=HEAD_IDS)
@pytest.mark.parametrize("space", [VECTOR, Discrete(6), SMALL], ids=str)
def test_with_levels_each_number_is_the_heads_answer_for_that_sample_action_and_level(
    space: gym.Space[Any], head: Any
) -> None:
    net: Any = QNetwork(space, 5, 1, 3, auto, partial(head), hidden=(8,))
    obs = samples(space, 4)
    trained = net(obs)
    assert trained.shape == (4, 5, 2 * 3)
    trained[..., :3].sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()  # without noise
    values = net(obs)
    assert values.shape == (4, 5, 2 * 32)
    assert torch.equal(net(obs), values)
    for b in range(4):
        features = net.torso(obs[b : b + 1])[0]
        for k in range(32):
            level = (k + 0.5) / 32
            cosines = torch.tensor([math.cos(math.pi * i * level) for i in range(64)])
            wanted = net.head((features * net.embedding.embedding(cosines))[None])[0, :, 0]
            torch.testing.assert_close(values[b, :, k], wanted, atol=1e-5, rtol=1e-4)
            assert values[b, :, 32 + k].tolist() == pytest.approx([level] * 5)


def test_with_levels_all_actions_of_a_sample_have_the_same_and_samples_have_their_own() -> None:
    level = QNetwork(VECTOR, 5, 1, 3, MLP, SingleStream)(torch.ones(4, 4))[..., 3:]
    assert torch.equal(level, level[:, :1].expand(4, 5, 3))
    assert len(level.unique()) == 4 * 3


def test_noise_is_one_draw_for_all_levels_of_a_pass() -> None:
    """Else two levels of one sample would come from two networks."""
    net: Any = QNetwork(VECTOR, 5, 1, 16, MLP, partial(Dueling, noisy=True, sigma0=2.0), hidden=())
    with torch.no_grad():
        for p in net.embedding.parameters():
            p.zero_()
        net.embedding.embedding[0].bias.fill_(1.0)  # the same embedding for every level
    quantiles = net(torch.ones(1, 4))[0, :, :16]
    torch.testing.assert_close(quantiles, quantiles[:, :1].expand(5, 16))


def test_parameter_counts_of_the_papers() -> None:
    # 2015: 4*64*32+32 + 32*16*64+64 + 64*9*64+64 + 3136*512+512 + 512*6+6
    assert parameters(QNetwork(ATARI, 6, 1, 0, NatureCNN, SingleStream)) == 1_687_206
    # 2013: 4*64*16+16 = 4112, 16*16*32+32 = 8224, 2592*256+256 = 663808, 256*4+4 = 1028
    assert parameters(QNetwork(ATARI, 4, 1, 0, NipsCNN, SingleStream)) == 677_172
    # Dueling: convolutions 8224+32832+36928, two hidden layers of 1606144, 513 for V, 3078 for A
    assert parameters(QNetwork(ATARI, 6, 1, 0, NatureCNN, Dueling)) == 77_984 + 2 * 1_606_144 + 513 + 3078
    # MLP: 4*256+256 + 256*256+256 + 256*2+2
    assert parameters(QNetwork(VECTOR, 2, 1, 0, MLP, SingleStream)) == 67_586
    # IQN: an embedding more, 64*3136+3136, whatever the number of levels
    assert parameters(QNetwork(ATARI, 6, 1, 8, NatureCNN, SingleStream)) == 1_687_206 + 203_840
    assert parameters(QNetwork(ATARI, 6, 1, 64, NatureCNN, SingleStream)) == 1_687_206 + 203_840


def test_hidden_replaces_what_the_torso_asks_for() -> None:
    # the torso keeps 4*256+256; the head: 256*10+10, 10*20+20, 20*2+2
    assert parameters(QNetwork(VECTOR, 2, 1, 0, MLP, SingleStream, hidden=(10, 20))) == 1280 + 2570 + 220 + 42
    assert parameters(QNetwork(VECTOR, 2, 1, 0, MLP, SingleStream, hidden=())) == 1280 + 514
    net: Any = QNetwork(VECTOR, 2, 1, 0, partial(MLP, activation="tanh", layer_norm=True), SingleStream, hidden=(10,))
    assert [type(m) for m in net.head.values.hidden] == [nn.Linear, nn.LayerNorm, nn.Tanh]


@pytest.mark.parametrize("head", HEADS, ids=HEAD_IDS)
def test_xavier(head: Any) -> None:
    torch.manual_seed(0)
    net = QNetwork(SMALL, 6, 1, 0, NatureCNN, head, init="xavier")
    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) == (3 if isinstance(head, partial) else 3 + (2 if head is SingleStream else 4))
    for layer in layers:
        receptive = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
        fan = (layer.weight.shape[0] + layer.weight.shape[1]) * receptive
        bound = math.sqrt(6 / fan)
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert torch.all(layer.bias == 0)
    for noisy in (m for m in net.modules() if isinstance(m, NoisyLinear)):  # these keep the paper's own rule
        assert noisy.weight.abs().max() <= 1 / math.sqrt(noisy.in_features)
        assert torch.any(noisy.bias != 0)


@pytest.mark.parametrize("init", ["default", "xavier"])
@pytest.mark.parametrize("head", HEADS, ids=HEAD_IDS)
def test_small_outputs(head: Any, init: str) -> None:
    torch.manual_seed(0)
    net: Any = QNetwork(VECTOR, 6, 1, 0, MLP, head, init=init, last_layer_std=1e-3)
    streams = list(net.head.children())
    assert len(streams) == (2 if hasattr(net.head, "advantage") else 1)
    for stream in streams:
        assert stream.out.weight.std().item() == pytest.approx(1e-3, rel=0.15)  # 256 weights at least
        assert torch.all(stream.out.bias == 0)
        assert stream.hidden[0].weight.std() > 0.02  # hidden layers stay as they were
        if isinstance(stream.out, NoisyLinear):
            assert stream.out.weight_sigma[0, 0].item() == pytest.approx(0.5 / 16)
    assert net.eval()(samples(VECTOR)).abs().max() < 0.05


def test_last_layer_std_null_leaves_the_weights() -> None:
    torch.manual_seed(0)
    net: Any = QNetwork(VECTOR, 6, 1, 0, MLP, SingleStream)
    assert net.head.values.out.weight.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.1)
    assert torch.any(net.head.values.out.bias != 0)


class Mine(nn.Module):
    """A torso of the user's own, without `fc`; with BatchNorm, which refuses a batch of one in training mode."""

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.layer = nn.Linear(space.shape[0], 9)
        self.norm = nn.BatchNorm1d(9)

    def forward(self, obs: Tensor) -> Tensor:
        return self.norm(self.layer(obs))


class MineWithFc(nn.Module):
    """A torso that happens to call its own layer `fc`."""

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.fc = nn.Linear(space.shape[0], 9)

    def forward(self, obs: Tensor) -> Tensor:
        return self.fc(obs)


@pytest.mark.parametrize("torso", [Mine, MineWithFc])
def test_a_torso_of_the_users_own(torso: Any) -> None:
    net: Any = QNetwork(VECTOR, 3, 1, 0, torso, SingleStream)
    assert net(samples(VECTOR)).shape == (3, 3, 1)
    assert parameters(net.head) == 9 * 3 + 3  # nothing between torso and output
    assert parameters(QNetwork(VECTOR, 3, 1, 0, torso, SingleStream, hidden=(5,)).head) == 9 * 5 + 5 + 5 * 3 + 3


def test_measuring_the_features_leaves_no_trace() -> None:
    net: Any = QNetwork(VECTOR, 3, 1, 0, Mine, SingleStream)
    assert all(m.training for m in net.modules())
    assert torch.all(net.torso.norm.running_mean == 0)
    assert net.torso.norm.num_batches_tracked == 0


class Shapeless(nn.Module):
    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()

    def forward(self, obs: Tensor) -> Tensor:
        return obs[:, None, :]


class Mixing(Mine):
    def forward(self, obs: Tensor) -> Tensor:
        return obs.mean(dim=0, keepdim=True)


class Listed(nn.Module):
    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__()
        self.first, self.others = nn.Linear(4, 8), [nn.Linear(8, 8)]

    def forward(self, obs: Tensor) -> Tensor:
        x: Tensor = self.others[0](self.first(obs))
        return x


class WrongWidth(Mine):
    def __init__(self, space: gym.Space[Any]) -> None:
        super().__init__(Box(-1, 1, (99,)))


def test_wrong_fits_are_told() -> None:
    with pytest.raises(UserError, match=r"network\.torso: must be an nn\.Module, got a NoneType"):
        QNetwork(VECTOR, 2, 1, 0, lambda space: None, SingleStream)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"network\.torso: NatureCNN needs images, .*network=mlp"):
        QNetwork(VECTOR, 2, 1, 0, NatureCNN, SingleStream)
    with pytest.raises(
        UserError, match=r"network\.torso: Shapeless must return features .*, it returned \(2, 1, 4\) for 2 "
    ):
        QNetwork(VECTOR, 2, 1, 0, Shapeless, SingleStream)
    with pytest.raises(UserError, match=r"network\.torso: Mixing must return features .*, it returned \(1, 4\) for 2 "):
        QNetwork(VECTOR, 2, 1, 0, Mixing, SingleStream)
    with pytest.raises(UserError, match=r"network\.torso: Listed computes with weights that are not its parameters; "):
        QNetwork(VECTOR, 2, 1, 0, Listed, SingleStream)
    with pytest.raises(UserError, match=r"network\.torso: WrongWidth cannot read observations Box"):
        QNetwork(VECTOR, 2, 1, 0, WrongWidth, SingleStream)
    with pytest.raises(UserError, match=r"network\.torso: GRU must return features \(B, F\), it returned a tuple"):
        QNetwork(VECTOR, 2, 1, 0, lambda space: nn.GRU(space.shape[0], 4), SingleStream)  # type: ignore[index]
    with pytest.raises(UserError, match=r"network\.init: must be one of default, xavier.*, got 'he'"):
        QNetwork(VECTOR, 2, 1, 0, MLP, SingleStream, init="he")
    with pytest.raises(UserError, match=r"activation must be one of relu, .*, got 'x'"):
        QNetwork(VECTOR, 2, 1, 0, partial(MLP, activation="x"), SingleStream)


@pytest.mark.parametrize("torso", [NatureCNN, NipsCNN, Conv3x3])
def test_bf16_is_fp32_but_for_rounding_of_the_torso(torso: Any) -> None:
    torch.manual_seed(0)
    exact: Any = QNetwork(SMALL, 6, 1, 0, torso, Dueling)
    rounded: Any = QNetwork(SMALL, 6, 1, 0, torso, Dueling, precision="bf16")
    rounded.load_state_dict(exact.state_dict())
    obs = samples(SMALL, 8)
    a, b = exact(obs), rounded(obs)
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 0.02 * a.abs().max()  # bfloat16 has 8 bits: 1/256 a layer
    a.square().sum().backward()
    b.square().sum().backward()
    for p, q in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert q.grad.dtype == torch.float32
        assert torch.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0) > 0.99


def test_the_head_is_never_rounded() -> None:
    """Values that bfloat16 could not tell apart: its numbers next to 2 are 2 +- 1/128."""
    net: Any = QNetwork(SMALL, 6, 1, 0, NipsCNN, SingleStream, precision="bf16")
    with torch.no_grad():
        net.head.values.out.weight.zero_()
        net.head.values.out.bias.copy_(2 + torch.arange(6) / 1000)
    assert net(samples(SMALL, 1))[0, :, 0].tolist() == pytest.approx([2, 2.001, 2.002, 2.003, 2.004, 2.005], abs=1e-6)
