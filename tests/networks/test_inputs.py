"""What networks make of observations: scaled by their space, one-hot, as images, normalised."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import nn

from rl_runner.networks.inputs import (
    Image,
    Normalizer,
    OneHot,
    PixelConvolution,
    Pixels,
    flat_input,
    image,
    in_words,
    looks_like_image,
)
from rl_runner.types import UserError

BYTES = Box(0, 255, (3,), np.uint8)
MIXED = Box(np.array([0, -1, 0], np.float32), np.array([255, 1, 1], np.float32))

SCALED = [
    (BYTES, [0, 51, 255], [0.0, 0.2, 1.0]),
    (Box(0, 255, (3,), np.float32), [0, 51, 255], [0.0, 0.2, 1.0]),
    (Box(0, 1, (3,), np.uint8), [0, 1, 1], [0, 1, 1]),  # flags: what is in {0, 1} already is not divided
    (Box(0, 1, (3,), np.int8), [0, 1, 1], [0, 1, 1]),
    (Box(0, 1, (3,), np.bool_), [False, True, True], [0, 1, 1]),
    (Box(0, 7, (3,), np.uint8), [0, 3, 7], [0, 3, 7]),
    (Box(-1, 1, (3,), np.float32), [-1, 0.5, 1], [-1, 0.5, 1]),
    (Box(-np.inf, np.inf, (3,), np.float32), [300, -2.5, 0], [300, -2.5, 0]),
    (MIXED, [51, 0.5, 1], [0.2, 0.5, 1]),  # element by element
    (MultiBinary(3), [0, 1, 1], [0, 1, 1]),
]


@pytest.mark.parametrize(("space", "given", "wanted"), SCALED, ids=str)
def test_values_are_divided_by_255_only_where_their_space_ends_there(space, given, wanted) -> None:
    layer, width = flat_input(space)
    obs = torch.from_numpy(np.array([given], dtype=space.dtype))
    before = obs.clone()
    assert layer(obs).tolist() == [pytest.approx(wanted)]
    assert layer(obs).dtype == torch.float32
    assert width == 3
    assert torch.equal(obs, before)


def test_scaling_is_no_part_of_what_is_saved() -> None:
    assert not flat_input(MIXED)[0].state_dict()


def test_what_no_vector_can_be_made_of_is_refused() -> None:
    with pytest.raises(UserError, match=r"network\.torso: .*Dict"):
        flat_input(Dict({"a": Discrete(2)}))


IMAGES = [
    (Box(0, 255, (4, 84, 84), np.uint8), Image(4, 84, 84, False), True),
    (Box(0, 255, (84, 80, 3), np.uint8), Image(3, 84, 80, True), True),
    (Box(0, 1, (10, 10, 4), np.bool_), Image(4, 10, 10, True), True),
    (Box(0, 255, (7, 7, 3), np.uint8), Image(3, 7, 7, True), True),
    (Box(0, 1, (10, 10, 10), np.bool_), Image(10, 10, 10, True), True),
    (Box(0, 1, (8, 8, 111), np.bool_), Image(111, 8, 8, True), True),
    (Box(0, 1, (17, 8, 8), np.bool_), Image(17, 8, 8, False), True),
    (Box(0, 1, (64, 48), np.float32), Image(1, 64, 48, False), True),
    (Box(0, 255, (4, 30, 20, 3), np.uint8), Image(12, 30, 20, True), True),
    (Box(0, 255, (4, 3, 30, 20), np.uint8), Image(12, 30, 20, False), True),
    (Box(-np.inf, np.inf, (20, 20), np.float32), Image(1, 20, 20, False), False),  # a matrix
    (Box(0, 1, (5, 7), np.float32), Image(1, 5, 7, False), False),
    (Box(0, 1, (3, 4, 4), np.float32), Image(3, 4, 4, False), False),
    (Box(0, 1, (16,), np.float32), None, False),
    (Discrete(5), None, False),
]


@pytest.mark.parametrize(("space", "wanted", "auto"), IMAGES, ids=str)
def test_how_spaces_are_read_as_images(space, wanted, auto) -> None:
    assert image(space) == wanted
    assert looks_like_image(space) == auto


@pytest.mark.parametrize("space", [space for space, seen, _ in IMAGES if seen], ids=str)
def test_pixels_stand_where_a_loop_puts_them(space) -> None:
    seen = image(space)
    assert seen is not None
    space.seed(0)
    obs = np.stack([space.sample() for _ in range(2)])
    out = Pixels(seen.channels_last)(torch.from_numpy(obs))
    assert out.shape == (2, seen.channels, seen.height, seen.width)
    frames = obs.reshape(2, -1, *space.shape[-3:]) if len(space.shape) > 2 else obs.reshape(2, 1, 1, *space.shape)
    per_frame = seen.channels // frames.shape[1]
    for channel in range(seen.channels):
        frame, plane = divmod(channel, per_frame)
        expected = frames[:, frame, :, :, plane] if seen.channels_last else frames[:, frame, plane]
        np.testing.assert_array_equal(out[:, channel].numpy(), expected)


WORDS = [
    (Discrete(1000), "1,000 states, one-hot"),
    (MultiDiscrete([3, 4]), "2 discrete values of 3, 4 states, one-hot"),
    (MultiBinary(5), "5 flags, as they are"),
    (Box(0, 1, (16,), np.uint8), "16 flags, as they are"),
    (Box(0, 1, (3,), np.float32), "3 numbers in [0, 1], as they are"),
    (Box(-np.inf, np.inf, (5, 5), np.float32), "25 numbers in [-inf, inf] of shape 5x5, flattened, as they are"),
    (BYTES, "3 numbers in [0, 255], divided by 255"),
    (MIXED, "3 numbers in [-1, 255], 1 of them divided by 255"),
]


@pytest.mark.parametrize(("space", "words"), WORDS, ids=str)
def test_the_words_for_a_space(space, words) -> None:
    assert in_words(space) == words


def test_the_words_for_images() -> None:
    space = Box(0, 255, (4, 84, 84), np.uint8)
    assert in_words(space, image(space)) == "images of 84x84, 4 planes, numbers in [0, 255], divided by 255"
    board = Box(0, 1, (10, 10), np.bool_)
    assert in_words(board, image(board)) == "images of 10x10, flags, as they are"


def stream() -> np.ndarray:
    return np.random.default_rng(0).normal([1e6, -3.0, 0.0], [1.0, 100.0, 1e-3], size=(500, 3)).astype(np.float32)


def normalizer() -> Normalizer:
    return Normalizer(Box(-np.inf, np.inf, (3,), np.float32))


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_statistics_are_those_of_all_observations_together(batch) -> None:
    layer, obs = normalizer(), stream()
    for start in range(0, len(obs), batch):
        layer.update(torch.from_numpy(obs[start : start + batch]))
    exact = obs.astype(np.float64)
    np.testing.assert_allclose(layer.mean.numpy(), exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance.numpy(), exact.var(axis=0), rtol=1e-7)
    assert layer.count == 500
    expected = ((exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-8)).clip(-10, 10)
    np.testing.assert_allclose(layer(torch.from_numpy(obs)).numpy(), expected, atol=1e-5)


def test_only_update_changes_statistics_and_they_are_saved() -> None:
    layer, obs = normalizer(), torch.from_numpy(stream())
    layer.update(obs)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.train()(obs)
    assert set(before) == {"mean", "variance", "count"}
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_what_is_far_out_is_clipped_and_a_constant_is_zero() -> None:
    layer = normalizer()
    layer.update(torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, -1.0]]))
    assert layer(torch.tensor([[1.0, 5.0, 1e9]])).tolist() == [[10.0, 0.0, 10.0]]


def test_normalised_numbers_have_bounds_where_the_true_ones_have() -> None:
    space = Normalizer(Box(np.array([-np.inf, 0], np.float32), np.array([np.inf, 5], np.float32))).space
    assert (space.low.tolist(), space.high.tolist()) == ([-np.inf, -10], [np.inf, 10])


def test_only_numbers_can_be_normalised() -> None:
    with pytest.raises(UserError, match=r"network\.normalize: .*Discrete"):
        Normalizer(Discrete(5))


def test_one_hot() -> None:
    assert OneHot([3], [0])(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert OneHot([3], [-1])(torch.tensor([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]
    two = OneHot([2, 3], [0, 5])(torch.tensor([[1, 5], [0, 7]]))
    assert two.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert two.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_convolution_of_pixels_is_one_of_their_share_of_255(channels_last: bool) -> None:
    torch.manual_seed(0)
    x = torch.randint(256, (2, 9, 9, 3) if channels_last else (2, 3, 9, 9), dtype=torch.uint8)
    before = x.clone()
    layer = PixelConvolution(3, 4, 4, stride=2)
    y = layer(Pixels(channels_last)(x))
    y.square().sum().backward()
    weight, bias = (p.detach().double().requires_grad_() for p in (layer.weight, layer.bias))
    images = x.permute(0, 3, 1, 2) if channels_last else x
    expected = nn.functional.conv2d(images.double() / 255, weight, bias, stride=2)
    expected.square().sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    assert layer.bias is not None
    torch.testing.assert_close(layer.weight.grad.double(), weight.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.bias.grad.double(), bias.grad, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("grad", [False, True])
def test_pixels_move_channels_first_and_where_there_is_a_backward_pass_last_in_memory(grad: bool) -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)  # (B, H, W, C)
    with torch.set_grad_enabled(grad):
        y, z = Pixels(channels_last=True)(x), Pixels(channels_last=False)(x)
    assert y.shape == (2, 5, 3, 4)
    assert y[1, 4, 2, 0].item() == x[1, 2, 0, 4].item()
    assert torch.equal(z, x.float())
    assert z.is_contiguous(memory_format=torch.channels_last) == grad
    assert z.is_contiguous() != grad


def test_every_byte_is_exact_in_bfloat16() -> None:
    every_byte = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = Pixels(channels_last=False)(every_byte)
    assert y.dtype == torch.bfloat16
    assert y.flatten().tolist() == list(range(256))
