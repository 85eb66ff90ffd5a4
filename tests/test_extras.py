"""Packages of the extras: imported, or named with what installs them."""

import sys

import pytest

from rl_runner import extras
from rl_runner.types import UserError


def test_a_package_that_is_there() -> None:
    assert extras.package("json", "any", "anything") is sys.modules["json"]


def test_a_missing_one_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"^export: needs onnx, which is not installed: pip install 'rlrun\[export\]'$"):
        extras.package("onnx", "export", "export")
