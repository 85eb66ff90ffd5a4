"""Search spaces: Hydra's grammar as distributions, with Hydra's own expansion as the oracle of grids."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from rl_runner.types import UserError

distributions = pytest.importorskip("optuna.distributions")
Choice, Float, Int = (getattr(distributions, f"{name}Distribution") for name in ("Categorical", "Float", "Int"))

from rl_runner.launch import space  # noqa: E402


def parsed(*words: str) -> space.Space:
    return space.of(OverridesParser.create().parse_overrides(list(words)))


def test_hydras_grammar_as_distributions() -> None:
    words = {
        "a=interval(1e-5,1e-2)": Float(1e-5, 1e-2),
        "b=tag(log,interval(1e-5,1e-2))": Float(1e-5, 1e-2, log=True),
        "c=int(interval(4,16))": Int(4, 16),
        "d=tag(log,int(interval(4,16)))": Int(4, 16, log=True),
        "+e=choice(mlp,dueling)": Choice(["mlp", "dueling"]),
        "f=1,2": Choice(["1", "2"]),
        "g=range(1,6)": Int(1, 5),
        "h=range(8,65,8)": Int(8, 64, step=8),
        "i=range(0,1,0.25)": Float(0.0, 0.75, step=0.25),
    }
    assert parsed("fixed=3", *words) == {word.partition("=")[0]: meant for word, meant in words.items()}


def test_a_grid_is_what_hydra_sweeps_over() -> None:
    words = ["a=choice(x,y)", "b=range(1,8,3)", "c=range(0,1,0.5)"]
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
    points = [[f"{key}={value}" for key, value in point.items()] for point in space.grid(parsed(*words))]
    assert points == [list(job) for job in jobs]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("lr=interval(2,1)", "an interval needs low < high"),
        ("lr=tag(log,interval(0,1))", "an interval needs 0 < low < high"),
        ("lr=tag(lin,interval(0,1))", "the only tag is log, got lin"),
        ("lr=tag(log,choice(1,2))", r"tag\(log, ...\) needs interval\(...\) or range\(...\)"),
        ("lr=tag(log,range(0,1,0.1))", "needs positive whole numbers and step 1"),
        ("lr=range(3,3)", "the range is empty"),
    ],
)
def test_what_cannot_be_searched(word: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as refused:
        parsed(word)
    assert str(refused.value).startswith(f"{word}: ")


def test_an_interval_has_no_grid() -> None:
    with pytest.raises(UserError, match=r"^lr: hydra\.sweeper\.sampler=grid needs choice"):
        space.grid(parsed("lr=interval(0,1)"))
