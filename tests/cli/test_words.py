"""Words of a command line in Hydra's grammar."""

from pathlib import Path

import pytest

from rl_runner.cli.verbs import VERBS
from rl_runner.cli.words import WrongLine, config_dir, options_of, prepare, quote, search_path, split


def translated(verb: str, *words: str) -> list[str]:
    return prepare(VERBS[verb], list(words))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("seed=3", "seed=3"),
        ("total_steps=1e6", "total_steps=1000000"),
        ("total_steps=2.5E+3", "total_steps=2500"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),  # not a whole number
        ("total_steps=1.55e1", "total_steps=1.55e1"),
        ("env.kwargs.continuous=true", "++env.kwargs.continuous=true"),
        ("env.kwargs={a: 1}", "++env.kwargs={a: 1}"),
        ("+env.kwargs.a=1", "+env.kwargs.a=1"),
        ("network/torso=nature_cnn", "network/torso=nature_cnn"),
        ("network/torso.width=3", "network.torso.width=3"),
        ("~logger", "~logger"),
        ("resume=runs/a b", "resume='runs/a b'"),
        ("resume='runs/a b'", "resume='runs/a b'"),
        ("resume=null", "resume=null"),
    ],
)
def test_a_word(word: str, wanted: str) -> None:
    assert translated("train", word) == [wanted]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["seed=0", "--cfg", "job"], ["--cfg", "job", "--resolve", "seed=0"]),
        (["--cfg=job", "seed=0"], ["--cfg", "job", "--resolve", "seed=0"]),
        (["-c", "job", "--resolve"], ["-c", "job", "--resolve"]),
        (["--cfg", "hydra"], ["--cfg", "hydra"]),  # it refers to keys that are not shown with it
        (["seed=0,1", "-m"], ["-m", "seed=0,1"]),
    ],
)
def test_options_come_first(words: list[str], wanted: list[str]) -> None:
    assert translated("train", *words) == wanted


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cfg", "jobs"], "--cfg: must be job or hydra or all, got 'jobs'"),
        (["--cfg"], "--cfg: must be job or hydra or all, got ''"),
        (["--config-dir"], "--config-dir: must be DIRECTORY, got ''"),
        (["-m", "--cfg", "job"], "--cfg: shows one configuration; leave out --multirun and further values"),
        (["-m", "resume=x"], "resume: one run at a time; leave out --multirun"),
    ],
)
def test_options_that_do_not_fit(words: list[str], says: str) -> None:
    with pytest.raises(WrongLine) as error:
        translated("train", *words)
    assert str(error.value) == says


def test_runs_without_a_key(workdir: Path) -> None:
    for name in ("a", "b=c"):
        Path(name).mkdir()
    assert translated("eval", "a") == ["checkpoint='a'"]
    assert translated("eval", "b=c") == ["checkpoint='b=c'"]  # a directory, though it looks like an override
    assert translated("eval", "seed=1", "a", "b=c") == ["checkpoint=['a','b=c']", "seed=1"]
    assert translated("eval", "-m", "a,b=c") == ["-m", "checkpoint='a','b=c'"]
    assert translated("eval", "-m", "latest,b=c") == ["-m", "checkpoint='latest','b=c'"]
    long = ",".join(map(str, range(100)))  # longer than a file's name can be
    assert translated("eval", "-m", "latest", f"seed={long}") == ["-m", "checkpoint='latest'", f"seed={long}"]
    Path("a,b").mkdir()
    assert translated("eval", "-m", "a,b") == ["-m", "checkpoint='a,b'"]
    with pytest.raises(WrongLine, match="checkpoint: play takes one run at a time, got 'a' and 'b=c'"):
        translated("play", "a", "b=c")


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("", ""),
        ("null", "null"),
        ("runs/0", "'runs/0'"),
        ("it's", r"'it\'s'"),
        ("a\\", r"'a\\'"),
        ("${x}", r"'\${x}'"),
    ],
)
def test_quotes(path: str, quoted: str) -> None:
    assert quote(path) == quoted


def test_a_configuration_directory_of_ones_own(workdir: Path) -> None:
    options, words = split(VERBS["train"], ["--config-dir", "one", "seed=0", "-cd=two"])
    assert (options, words) == (["--config-dir", "one", "-cd", "two"], ["seed=0"])
    assert config_dir(options) == "two"
    assert config_dir(["-m"]) is None
    assert search_path("two") == f"hydra.searchpath=['file://{workdir}/two']"


def test_a_verb_with_options_of_its_own_takes_none_of_hydras_but_the_directory() -> None:
    own = options_of(VERBS["doctor"])
    assert set(own) == {"--seconds", "--json", "--config-dir", "-cd"}
    assert (own["--seconds"], own["--json"]) == (("N",), None)
    assert "--multirun" in options_of(VERBS["train"])


def test_whole_numbers_of_a_sweep() -> None:
    words = ["-m", "total_steps=1e2,2e2,300", "optimizer.lr=1e-3,1e1"]
    assert translated("train", *words) == ["-m", "total_steps=100,200,300", "optimizer.lr=1e-3,10"]
    words = ["-m", "tags=[a,1e6,b]", "total_steps=choice(1e6,2e6,3e6)", "name='a,1e6,b'"]
    assert translated("train", *words) == words
