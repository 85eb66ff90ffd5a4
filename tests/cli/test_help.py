"""Help on groups, options and keys, read from the files in conf/."""

import re
from pathlib import Path

import pytest
import yaml

from rl_runner import catalogue
from rl_runner.cli import keys
from rl_runner.cli.table import VERBS
from tests.commandline import refused, rlrun


def written(file: Path) -> set[str]:
    """Return the leaf names of a YAML file, found by another parser of it."""
    text = re.sub(r"(?m)^(defaults|hydra):\n([ -].*\n|\n)*", "", file.read_text())

    def leaves(node: object, prefix: str) -> set[str]:
        if isinstance(node, dict) and node:
            return {name for key, child in node.items() for name in leaves(child, f"{prefix}{key}.")}
        return {prefix.rstrip(".")}

    return leaves(yaml.safe_load(text) or {}, "") - {""}


def test_the_comment_of_a_key_that_options_share_says_what_it_is() -> None:
    out = rlrun("train", "--help", "exploration").out + rlrun("train", "--help", "env").out
    assert "epsilon at the first step" in out
    assert "probability per frame that the emulator repeats the last action" in out


def test_a_key_that_means_different_things_to_different_options_has_a_line_for_each() -> None:
    out = rlrun("train", "--help", "agent").out
    row = re.search(r"(?m)^  rollout_steps: [^#\n]*((?:\n? +# .*)+)", out)
    assert row
    meanings = [line.strip() for line in row[1].splitlines()]
    assert meanings == [
        "# steps of each environment between gradient steps (a2c, actor_critic)",
        "# steps of each environment in a rollout (ppo, pqn, trpo)",
        "# null: rollouts are whole episodes (ars, reinforce)",
    ]
    sticky = rlrun("train", "--help", "env.sticky").out
    assert re.search(r"# probability per frame that the emulator repeats the last action .*\n +# Atari only\n", sticky)


def test_every_key_of_every_group_is_listed() -> None:
    for group in catalogue.groups():
        shown = rlrun("train", "--help", group).out
        package = group.replace("/", ".")
        for option in catalogue.options(group):
            assert re.search(rf"(?m)^  {option}\b", shown), (group, option)
            file = catalogue.conf_dir() / group / f"{option}.yaml"
            in_root = file.read_text().startswith("# @package _global_")
            for name in written(file):
                name = name if in_root else f"{package}.{name}"
                inner = [other for other in catalogue.groups() if other.startswith(f"{group}/")]
                elsewhere = any(name.startswith(other.replace("/", ".") + ".") for other in inner)
                if name.startswith(f"{package}.") and "._" not in name and not elsewhere:
                    name = re.sub(r"^env\.kwargs\..*", "env.kwargs", name)  # written as one value, {key: value}
                    assert re.search(rf"(?m)^  {re.escape(name)}:", shown), (group, option, name)


def test_the_help_of_a_verb_names_every_key() -> None:
    for verb in VERBS.values():
        shown = rlrun(verb.name, "--help").out
        for name in keys.names(verb):
            assert name in shown, (verb.name, name)
        for key in keys.of_verb(verb):
            assert key.comment in shown


def test_a_key_its_values_and_its_comment() -> None:
    shown = rlrun("train", "--help", "optimizer").out
    assert "  optimizer.lr: 1e-4 (adam, adamw), 2.5e-4 (radam, rmsprop), 7e-4 (rmsprop_tf)" in shown
    assert re.search(r"\n  optimizer.lr_end: null +# \w+", shown)
    assert "\n  optimizer.weight_decay: 0.01 (adamw)" in shown
    one = rlrun("train", "--help", "optimizer.weight_decay").out
    assert re.fullmatch(r"  optimizer.weight_decay: 0.01 \(adamw\)(  # .*)?\n", one)
    assert re.match(r"  total_steps: 100_000  # \w+", rlrun("train", "--help", "total_steps").out)
    assert rlrun("train", "-h", "eval.").out.count("\n  eval.") == 3
    option = rlrun("train", "--help", "network=dueling_noisy").out
    assert "\n  network.head.noisy: true" in option
    assert "\n  network.hidden: null  " in option  # of the options that it extends
    assert rlrun("help", "train", "optimizer").out == shown
    assert rlrun("help").out == rlrun("--help").out
    assert rlrun("play", "--help", "env").out.startswith("options of env")


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("lr", "no help on 'lr'; did you mean optimizer.lr?"),
        ("optimzer", "no help on 'optimzer'; did you mean optimizer?"),
        ("env=cartpol", "env: there is no 'cartpol'; did you mean cartpole?"),
        ("!", "no help on '!'; name a group or a key"),
    ],
)
def test_a_topic_that_there_is_not(topic: str, says: str, workdir: Path) -> None:
    assert refused("train", "--help", topic) == f"rlrun: {says}"
