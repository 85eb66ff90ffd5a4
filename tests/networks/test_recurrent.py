"""Recurrent layers against the published equations in double precision, one step and one sequence at a time."""

import numpy as np
import pytest
import torch

from rl_runner.networks.recurrent import Recurrent
from rl_runner.types import UserError


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_hand(layer: Recurrent, kind: str, x: np.ndarray, memory: np.ndarray, begins: np.ndarray):
    """Return outputs (L, C, H) and the memory (C, S) after the last step; gates in torch's documented order."""
    w_x, w_h, b_x, b_h = (p.detach().double().numpy() for p in layer.layer.parameters())
    units, memory, outputs = w_h.shape[1], memory.copy(), []
    for t in range(len(x)):
        for c in range(x.shape[1]):
            if begins[t, c]:
                memory[c] = 0
            h = memory[c, :units]
            of_x, of_h = w_x @ x[t, c] + b_x, w_h @ h + b_h
            if kind == "lstm":
                i, f, g, o = np.split(of_x + of_h, 4)
                cell = sigmoid(f) * memory[c, units:] + sigmoid(i) * np.tanh(g)
                memory[c] = np.concatenate([sigmoid(o) * np.tanh(cell), cell])
            else:
                (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(of_x, 3), np.split(of_h, 3)
                z = sigmoid(z_x + z_h)
                memory[c] = (1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h
        outputs.append(memory[:, :units].copy())
    return np.stack(outputs), memory


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_outputs_and_memory_are_those_of_the_equations(kind: str, share: float) -> None:
    torch.manual_seed(0)
    rng, layer = np.random.default_rng(1), Recurrent(3, kind, 5).double()
    x, memory = rng.normal(size=(7, 4, 3)), rng.normal(size=(4, layer.size))
    begins = rng.random((7, 4)) < share
    flat = torch.from_numpy(x).flatten(0, 1)
    given, after = layer(flat, torch.from_numpy(memory), torch.from_numpy(begins).flatten())
    outputs, wanted = by_hand(layer, kind, x, memory, begins)
    np.testing.assert_allclose(given.detach().numpy().reshape(7, 4, 5), outputs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_no_gradient_goes_back_beyond_an_episodes_beginning(kind: str) -> None:
    layer = Recurrent(2, kind, 3)
    x, memory = torch.randn(4, 2, requires_grad=True), torch.randn(1, layer.size, requires_grad=True)
    outputs, _ = layer(x, memory, torch.tensor([False, False, True, False]))
    outputs[3].sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any(dim=1).tolist() == [False, False, True, True]
    assert not memory.grad.any()


def test_initial_weights() -> None:
    layer = Recurrent(6, "lstm", 4)
    torchs = [p.clone() for p in layer.parameters()]
    layer.initialize("default")
    assert all(torch.equal(p, q) for p, q in zip(layer.parameters(), torchs, strict=True))
    layer.initialize("orthogonal")
    weight = layer.layer.weight_hh_l0  # (16, 4)
    torch.testing.assert_close(weight.T @ weight, torch.eye(4))
    layer.initialize("xavier")
    assert float(layer.layer.weight_ih_l0.abs().max()) <= (6 / (6 + 16)) ** 0.5
    assert not layer.layer.bias_ih_l0.any()
    assert not layer.layer.bias_hh_l0.any()


@pytest.mark.parametrize(
    ("kind", "units", "line"),
    [
        ("rnn", 4, "network.memory: must be one of lstm, gru, or null, got 'rnn'"),
        ("lstm", 0, "network.memory_units: must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, units: int, line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}$"):
        Recurrent(3, kind, units)
