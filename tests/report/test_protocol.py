"""Which keys tell runs apart, and which say how runs are measured."""

import pytest

from rl_runner.report.protocol import is_protocol, tells_apart


@pytest.mark.parametrize(
    ("key", "protocol", "apart"),
    [
        ("optimizer.lr", False, True),
        ("total_steps", True, True),
        ("env.kwargs.gravity", True, True),
        ("env.fire_each_life", True, True),
        ("env.id", False, False),  # another environment, not another configuration
        ("seed", False, False),
        ("log.every_steps", False, False),
        ("checkpoint.keep", False, False),
    ],
)
def test_keys(key: str, protocol: bool, apart: bool) -> None:
    assert (is_protocol(key), tells_apart(key)) == (protocol, apart)
