"""Compiled functions: what they return and draw, and what is told where there is no compiler."""

from typing import Any

import pytest
import torch

from rl_runner.compiled import compiled_function
from rl_runner.types import UserError
from tests.compilers import where_it_compiles


@where_it_compiles
def test_a_compiled_function_is_the_plain_one_and_draws_from_the_stream_of_torch(device: str) -> None:
    def noisy(x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        y = x.sin() * 2 + torch.rand_like(x)
        return y.sum(), {"mean": y.mean()}

    x = torch.linspace(-1, 1, 7, device=device)
    torch.manual_seed(3)
    plain, later = noisy(x), torch.rand(1, device=device)
    torch.manual_seed(3)
    quick, later_again = compiled_function(noisy, torch.device(device))(x), torch.rand(1, device=device)
    torch.testing.assert_close(quick, plain)
    assert torch.equal(later, later_again)


def test_without_a_compiler_it_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> None:
        raise RuntimeError("no g++ found\nand much more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(
        UserError, match=r"^agent.compiled: torch.compile does not work here \(no g\+\+ found\); false "
    ):
        compiled_function(torch.sin, torch.device("cpu"))
