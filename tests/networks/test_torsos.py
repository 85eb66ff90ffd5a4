"""Torsos: features of every kind of observation."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor, nn

from rl_runner import memory
from rl_runner.networks.layers import fc_of
from rl_runner.networks.torsos import CNN, MLP, Conv3x3, NatureCNN, NipsCNN, SmallCNN, auto
from rl_runner.types import UserError


def image(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


def samples(space: gym.Space[Any], n: int = 5) -> Tensor:
    space.seed(0)
    return torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(n)]))


FLAT: list[tuple[gym.Space[Any], int]] = [
    (Box(-1, 1, (4,), np.float32), 4),
    (Box(-1, 1, (), np.float32), 1),
    (Box(-1, 1, (2, 3), np.float32), 6),
    (Box(0, 255, (128,), np.uint8), 128),
    (Discrete(7), 7),
    (Discrete(3, start=-5), 3),
    (MultiDiscrete([3, 2, 4]), 9),
    (MultiDiscrete([3, 2], start=[1, -5]), 5),
    (MultiDiscrete(np.array([[2, 3], [4, 5]])), 14),
    (MultiBinary(5), 5),
    (MultiBinary((2, 3)), 6),
    (image(4, 84, 84), 28224),
]


@pytest.mark.parametrize(("space", "width"), FLAT, ids=lambda x: str(x)[:40])
def test_mlp_reads_every_flat_observation(space: gym.Space[Any], width: int) -> None:
    torso = MLP(space, sizes=(8, 16))
    assert torso.hidden[0].in_features == width
    assert torso(samples(space)).shape == (5, 8)  # the last size is the head's
    assert torso.fc.sizes == (16,)


@pytest.mark.parametrize("start", [0, 3, -2])
def test_mlp_gives_each_discrete_state_its_own_column(start: int) -> None:
    torso = MLP(Discrete(4, start=start), sizes=(9,))
    assert torch.equal(torso(torch.arange(start, start + 4)), torch.eye(4))


def test_mlp_gives_each_multi_discrete_part_its_own_columns() -> None:
    torso = MLP(MultiDiscrete([2, 3], start=[1, 4]), sizes=(9,))
    assert torso(torch.tensor([[1, 4], [2, 6]])).tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]


def test_mlp_leaves_vectors_as_they_are_and_scales_bytes() -> None:
    x = torch.tensor([[300.0, -2.5]])
    assert torch.equal(MLP(Box(-1, 1, (2,), np.float32), sizes=(9,))(x), x)
    assert MLP(Box(0, 255, (2,), np.uint8), sizes=(9,))(torch.tensor([[255, 51]], dtype=torch.uint8)).tolist() == [
        [1.0, pytest.approx(0.2)]
    ]


def test_mlp_hands_activation_and_layer_norm_on() -> None:
    torso = MLP(Box(-1, 1, (2,), np.float32), (4, 5, 6), "tanh", layer_norm=True)
    assert [type(m) for m in torso.hidden] == [nn.Linear, nn.LayerNorm, nn.Tanh] * 2
    assert (torso.fc.sizes, torso.fc.activation, torso.fc.layer_norm) == ((6,), "tanh", True)


SMALL = partial(CNN, layers=[(6, 6, 3), (5, 5, 2)], centre=True)

IMAGES = [
    (SMALL, (4, 42, 42), 5 * 5 * 5),  # 42 -> 13 -> 5
    (NatureCNN, (4, 84, 84), 64 * 7 * 7),  # 84 -> 20 -> 9 -> 7
    (NatureCNN, (3, 96, 96), 64 * 9 * 9),  # 96, with zeros 100 -> 24 -> 11 -> 9
    (NatureCNN, (4, 42, 42), 64 * 2 * 2),  # 42, with zeros 44 -> 10 -> 4 -> 2
    (NatureCNN, (1, 36, 36), 64 * 1 * 1),  # 36 -> 8 -> 3 -> 1
    (NipsCNN, (4, 84, 84), 32 * 9 * 9),  # 84 -> 20 -> 9
    (NipsCNN, (1, 36, 36), 32 * 3 * 3),
    (Conv3x3, (3, 96, 96), 64 * 6 * 6),  # 96 / 2^4
    (Conv3x3, (4, 84, 84), 64 * 5 * 5),  # 84 -> 42 -> 21 -> 10 -> 5
    (Conv3x3, (1, 36, 36), 64 * 2 * 2),
    (NatureCNN, (12, 84, 84), 64 * 7 * 7),  # four stacked colour frames
    (NipsCNN, (4, 210, 160), 32 * 25 * 19),  # 210, with zeros 212 -> 52 -> 25; 160, with zeros 164 -> 40 -> 19
    (SmallCNN, (4, 10, 10), 64 * 4 * 4),  # 10, with zeros 11 -> 9 -> 4
    (SmallCNN, (3, 7, 7), 64 * 2 * 2),  # 7 -> 5 -> 2
]


@pytest.mark.parametrize(("torso", "shape", "width"), IMAGES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_convolutions_read_images(torso: Any, shape: tuple[int, int, int], width: int, channels_last: bool) -> None:
    c, h, w = shape
    space = image(h, w, c) if channels_last else image(c, h, w)
    assert torso(space)(samples(space, 2)).shape == (2, width)


@pytest.mark.parametrize(
    ("torso", "shape"),
    [
        *[(NatureCNN, (n, n + 5)) for n in range(36, 52)],
        *[(NipsCNN, (n + 9, n)) for n in range(36, 44)],
        *[(SmallCNN, (n, n)) for n in (5, 6, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19, 32, 35)],
        *[(Conv3x3, (n, n + 1)) for n in range(36, 52)],
        (SMALL, (41, 44)),
    ],
)
@torch.no_grad()
def test_every_pixel_is_read(torso: Any, shape: tuple[int, int]) -> None:
    """Weights and biases of one make every feature a sum of the pixels that it reads: a bright pixel raises some."""
    net = torso(Box(0, 1, (1, *shape), np.float32))
    net.input.centre = False
    for parameter in net.parameters():
        parameter.fill_(1)
    dark = torch.zeros(1, 1, *shape)
    height, width = shape
    # The edges. What lies between them is read where these are: windows follow each other without gaps.
    for row, column in [*[(r, width - 1) for r in range(height)], *[(0, c) for c in range(width)]]:
        bright = dark.clone()
        bright[0, 0, row, column] = 1
        assert (net(bright) > net(dark)).any(), (row, column)
        assert (net(bright.flip(2, 3)) > net(dark)).any(), (row, column)


@pytest.mark.parametrize("torso", [NatureCNN, NipsCNN, Conv3x3, SMALL])
def test_channels_last_is_the_same_image(torso: Any) -> None:
    first, last = torso(image(3, 40, 48)), torso(image(40, 48, 3))
    last.load_state_dict(first.state_dict())
    obs = samples(image(3, 40, 48))
    torch.testing.assert_close(last(obs.permute(0, 2, 3, 1).contiguous()), first(obs))


@pytest.mark.parametrize("torso", [NatureCNN, NipsCNN, Conv3x3])
def test_images_are_scaled_exactly_once_and_left_alone(torso: Any) -> None:
    net = torso(image(2, 36, 36))
    first = net.convolutions[0]
    seen: list[Tensor] = []
    first.register_forward_hook(lambda *call: seen.append(call[2]))
    obs = samples(image(2, 36, 36))
    before = obs.clone()
    net(obs)
    weight, bias = first.weight.double(), first.bias.double()
    expected = nn.functional.conv2d(before.double() / 255, weight, bias, first.stride, first.padding)
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(obs, before)


def test_the_first_kernel_sees_the_image_as_written() -> None:
    net = NatureCNN(image(1, 36, 36))
    conv = net.convolutions[0]
    y = conv(net.input(torch.full((1, 1, 36, 36), 51, dtype=torch.uint8)))
    w, b = conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy()
    np.testing.assert_allclose(y[0, :, 3, 4].detach(), 0.2 * w.sum(axis=(1, 2, 3)) + b, rtol=1e-4, atol=1e-6)


def test_kernels_strides_and_units_are_the_papers() -> None:
    def kernels(net: Any) -> list[tuple[int, int, int]]:
        convolutions = [m for m in net.convolutions if isinstance(m, nn.Conv2d)]
        return [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convolutions]

    assert kernels(NatureCNN(image(4, 84, 84))) == [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    assert NatureCNN(image(4, 84, 84)).fc.sizes == (512,)
    assert kernels(NipsCNN(image(4, 84, 84))) == [(16, 8, 4), (32, 4, 2)]
    assert NipsCNN(image(4, 84, 84)).fc.sizes == (256,)
    assert kernels(Conv3x3(image(3, 96, 96), widths=(8, 16), fc=())) == [(8, 3, 1), (16, 3, 1)]


@torch.no_grad()
def test_a_cnn_is_its_layers_on_centred_pixels() -> None:
    net = SMALL(image(3, 42, 40), fc=(7,))
    obs = samples(image(3, 42, 40), 4)
    first, _, second, _ = net.convolutions
    for batch in (obs, obs[:, :, :1].expand_as(obs) // 2):  # one of them with columns of one colour
        x = batch.double()
        x = (x - x.flatten(1).mean(dim=1)[:, None, None, None]) / 255
        x = nn.functional.pad(x, (1, 1, 0, 0))  # 40 columns, with zeros 42 -> 13 -> 5
        y = nn.functional.conv2d(x, first.weight.double(), first.bias.double(), stride=3).relu()
        y = nn.functional.conv2d(y, second.weight.double(), second.bias.double(), stride=2).relu()
        torch.testing.assert_close(net(batch).double(), y.flatten(1), rtol=1e-4, atol=1e-5)
    assert (first.out_channels, second.out_channels, net.fc.sizes) == (6, 5, (7,))


@torch.no_grad()
@pytest.mark.parametrize("torso", [NipsCNN, NatureCNN, SmallCNN, partial(CNN, layers=[(6, 6, 3), (5, 5, 2)])])
def test_layer_norm_stands_between_each_layer_and_its_relu(torso: Any) -> None:
    net, obs = torso(image(4, 42, 42), layer_norm=True), samples(image(4, 42, 42))
    x = net.padding(obs.double() / 255)
    for convolution, norm, _ in zip(*[iter(net.convolutions)] * 3, strict=True):
        norm.weight.uniform_(-1, 1)
        norm.bias.uniform_(-1, 1)
        x = nn.functional.conv2d(x, convolution.weight.double(), convolution.bias.double(), convolution.stride)
        x = x - x.mean(dim=(1, 2, 3), keepdim=True)
        x = x / (x.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()
        x = (x * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]).relu()
    torch.testing.assert_close(net(obs).double(), x.flatten(1), rtol=1e-4, atol=1e-4)
    assert net.fc.layer_norm
    assert not torso(image(4, 42, 42)).fc.layer_norm
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(obs).double(), x.flatten(1), rtol=0.05, atol=0.05)


def test_layer_norm_of_conv3x3_stands_before_relu_and_pooling() -> None:
    plain, normed = (Conv3x3(image(3, 96, 96), widths=(8, 16), layer_norm=norm) for norm in (False, True))
    kinds = [type(layer) for layer in normed.convolutions]
    assert kinds[1:4] == kinds[5:8] == [nn.GroupNorm, nn.ReLU, nn.MaxPool2d]
    assert [type(layer) for layer in plain.convolutions] == [kind for kind in kinds if kind is not nn.GroupNorm]
    assert normed.fc.layer_norm


@torch.no_grad()
@pytest.mark.parametrize("torso", [SMALL, partial(NipsCNN, centre=True), partial(NatureCNN, centre=True)])
def test_centred_pixels_do_not_depend_on_what_is_bright_everywhere(torso: Any) -> None:
    net, obs = torso(image(4, 42, 42)), samples(image(4, 42, 42)) // 2
    torch.testing.assert_close(net(obs + 100), net(obs), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net(obs + 100), net(obs), rtol=0.02, atol=0.02)


def test_widths_that_are_none_are_told() -> None:
    with pytest.raises(UserError, match=r"network\.torso\.widths: each must be at least 1, got \[32, -1\]"):
        Conv3x3(image(3, 96, 96), widths=[32, -1])


@pytest.mark.parametrize("layer", [(8, 4), (8, 4, 0), (8, 4, 2, 1)])
def test_layers_that_are_none_are_told(layer: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"network\.torso\.layers: each must be \[filters, kernel size, stride\]"):
        CNN(image(4, 42, 42), layers=[layer])


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (image(4, 84, 84), NatureCNN),
        (image(84, 84, 3), NatureCNN),
        (image(36, 36, 1), NatureCNN),
        (image(4, 35, 35), SmallCNN),  # too small for Nature's convolutions
        (image(10, 10, 4), SmallCNN),
        (image(7, 7, 3), SmallCNN),
        (Box(0, 1, (10, 10, 4), np.bool_), SmallCNN),
        (image(4, 4, 3), MLP),
        (image(128), MLP),
        (Box(0, 1, (4, 84, 84), np.float32), NatureCNN),
        (Box(0, 1, (84, 84), np.float32), NatureCNN),
        (Box(-np.inf, np.inf, (84, 84), np.float32), MLP),  # a matrix
        (Box(-1, 1, (4,), np.float32), MLP),
        (Discrete(5), MLP),
        (MultiDiscrete([2, 3]), MLP),
        (MultiBinary(3), MLP),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_auto_chooses_by_observation(space: gym.Space[Any], wanted: type[nn.Module]) -> None:
    assert type(auto(space)) is wanted
    assert type(auto(space, layer_norm=True)) is wanted
    assert fc_of(auto(space, layer_norm=True)).layer_norm
    assert not fc_of(auto(space)).layer_norm


@pytest.mark.parametrize("torso", [NatureCNN, NipsCNN, Conv3x3])
@pytest.mark.parametrize("space", [Box(-1, 1, (4,), np.float32), Discrete(5)], ids=str)
def test_convolutions_refuse_what_is_no_image(torso: Any, space: gym.Space[Any]) -> None:
    with pytest.raises(UserError, match=rf"network\.torso: {torso.__name__} needs images, .*network=mlp"):
        torso(space)


@pytest.mark.parametrize("torso", [NatureCNN, NipsCNN, Conv3x3, SMALL])
def test_convolutions_refuse_images_that_their_kernels_do_not_fit(torso: Any) -> None:
    with pytest.raises(UserError, match=r"network\.torso: images of 7x7 are too small for .*small_cnn"):
        torso(image(7, 7, 3))


@pytest.mark.parametrize("space", [image(7, 7, 3), Box(0, 1, (10, 10, 4), np.bool_), image(8, 8)], ids=str)
def test_convolutions_of_your_own_read_any_image_that_they_fit(space: gym.Space[Any]) -> None:
    torso = CNN(space, layers=[(5, 3, 1), (6, 2, 2)])
    side = (space.shape[0] - 2 - 1) // 2 + 1  # type: ignore[index]
    assert torso(samples(space)).shape == (5, 6 * side * side)


@torch.no_grad()
@pytest.mark.parametrize("side", [5, 7, 10, 15, 16, 35])
def test_the_small_network_reads_all_small_images(side: int) -> None:
    assert SmallCNN(image(side, side, 3))(samples(image(side, side, 3))).shape[0] == 5


@torch.no_grad()
def test_pixels_that_are_floats_are_not_scaled() -> None:
    space = Box(0, 1, (2, 10, 10), np.float32)
    net, obs = CNN(space, layers=[(3, 4, 2)]), samples(space)
    first = net.convolutions[0]
    expected = nn.functional.conv2d(obs.double(), first.weight.double(), first.bias.double(), stride=2).relu()
    torch.testing.assert_close(net(obs).double(), expected.flatten(1), rtol=1e-5, atol=1e-6)


def test_mlp_refuses_structured_observations() -> None:
    with pytest.raises(UserError, match=r"network\.torso: .*Dict"):
        MLP(gym.spaces.Dict({"a": Discrete(2)}))


@pytest.mark.parametrize(
    "space", [Discrete(10**5), MultiDiscrete([10**5 - 5, 5]), Box(0, 1, (10**5,), np.uint8)], ids=["one", "many", "box"]
)
def test_inputs_that_cannot_fit_are_refused_before_they_are_allocated(space: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 10**8)
    with pytest.raises(UserError, match=r"network\.torso: .*100,000 inputs × 64 units.* 0\.13 GB, but 0\.10 GB"):
        MLP(space, (64, 32))
