"""A finding in words, and for programs."""

import pytest

from rl_runner.doctor.finding import Finding, shown


def test_a_finding_is_one_line() -> None:
    assert str(Finding("batch_size", 10_000, "is too large", "use 32")) == "batch_size: 10,000 is too large; use 32"
    late = Finding("learn/loss", float("nan"), "is not finite", "use less", step=20_000)
    assert str(late) == "learn/loss: nan at step 20,000 is not finite; use less"
    assert str(Finding("env", "x", "", "use y")) == "env: x; use y"


def test_a_finding_for_programs() -> None:
    found = Finding("optimizer.lr", 0.5, "is too large", "use 1e-4", step=7, refused=True)
    parts = {"key": "optimizer.lr", "value": 0.5, "step": 7, "why": "is too large", "right": "use 1e-4"}
    assert found.plain() == {"kind": "refused", **parts}
    assert Finding("env", [1, 2], "", "").plain() == {
        "kind": "warning",
        "key": "env",
        "value": "[1, 2]",
        "why": "",
        "right": "",
    }


@pytest.mark.parametrize(
    ("value", "words"), [(12_345, "12,345"), (True, "True"), (0.123456, "0.1235"), ("a", "a"), (None, "None")]
)
def test_values_in_words(value: object, words: str) -> None:
    assert shown(value) == words
