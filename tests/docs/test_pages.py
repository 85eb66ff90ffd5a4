"""What the README and the pages say exists: links, keys with their defaults, command lines, the code to copy."""

import csv
import functools
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import rl_runner
from rl_runner import catalogue
from tests.commandline import SHORT, only_run, rlrun

DOCS = Path(rl_runner.__file__).parent / "docs"
README = DOCS.parent.parent / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
GROUPS = "agent|checkpoint|env|eval|exploration|log|network|optimizer|replay|stop|sync|tuned|value"
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from (text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            there = page.parent / name if name else page
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `rlrun train` in a page's code to copy, what is between commas cut to the first.

    On the pages of results that is every command in the text as well.
    """
    inline = re.findall(r"`(rlrun train [^`\n]+)`", prose(page)) if page.name in ("lectures.md", "results.md") else []
    for text in (*blocks(page, "bash"), *inline):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] in (["rlrun", "train"], ["scripts/rlrun", "train"]) and "--help" not in words:
                swept = "-m" in words
                words = [word for word in words[2:] if word not in ("-m", "--cfg", "job")]
                words = [word for word in words if not re.search(r"=(tag|interval|range|choice)\(", word)]
                yield [re.sub(r"=([^\[,]+),.*", r"=\1", word) if swept else word for word in words]


LINES = sorted({tuple(words) for page in (README, *DOCS.glob("*.md")) for words in commands(page)})


@pytest.mark.parametrize("words", [words for words in LINES if "--config-dir" not in words], ids=" ".join)
def test_every_command_line_composes(words: tuple[str, ...], workdir: Path) -> None:
    (workdir / "my_pkg.py").write_text("def MyNet(space, width=64): ...")  # which keys it takes is looked up
    done = rlrun("train", *words, "--cfg", "job")
    assert done.code == 0, done.err


def test_all_optional_packages_that_tests_need_are_in_the_command_that_installs_them() -> None:
    extras = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (command,) = re.findall(r"`\.venv/bin/pip install -e '\.\[(.*)\]'`", README.read_text(encoding="utf-8"))
    with_dev = {"dev", "video", "plot", "sweep"}  # scripts/test installs them, or, the last one, another name for one
    assert set(command.split(",")) == extras.keys() - with_dev


REPRODUCED = r"`scripts/reproduce ([a-z_0-9]+)`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_result_to_reproduce_exists(page: Path) -> None:
    results = runpy.run_path(str(README.parent / "scripts" / "reproduce"))["RESULTS"]
    for name in re.findall(REPRODUCED, page.read_text(encoding="utf-8")):
        assert name in results


def test_the_pages_name_results_to_reproduce() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert len(re.findall(REPRODUCED, text)) >= 60  # or the test above says nothing


@functools.cache
def keys() -> dict[str, set[str]]:
    """Return all keys of `rlrun train`, by their dotted names, and the defaults that files of conf/ give them."""
    found: dict[str, set[str]] = {}
    for group in ("", *catalogue.groups()):
        if group in ("ablation", "experiment") or group.startswith("tuned"):
            continue
        for file in (catalogue.conf_dir() / group).glob("train.yaml" if not group else "*.yaml"):
            text = file.read_text(encoding="utf-8")
            above = [] if not group or "@package _global_" in text else group.split("/")
            for name, value in leaves(yaml.load(text, yaml.BaseLoader), above):
                found.setdefault(name, set()).add(value)
    return found


def leaves(node: object, above: list[str]) -> Iterator[tuple[str, str]]:
    """Yield dotted names and values as they are written, without what is Hydra's."""
    if isinstance(node, dict) and node:
        for name, child in node.items():
            if name not in ("defaults", "hydra", "_partial_"):
                yield from leaves(child, [*above, str(name)])
    else:
        yield ".".join(above), re.sub(r"[\s']", "", str(node))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_that_is_named_exists(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        for name in re.findall(rf"(?:^|\s|\+)((?:{GROUPS})\.[a-z_.]+)(?==|\s|$)", code):
            parts = name.split(".")
            assert name in keys() or any(key.startswith(f"{name}.") for key in keys()) or parts[1] in ("kwargs",), code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_of_eval_play_and_export_exists(page: Path) -> None:
    for command, words in re.findall(r"rlrun (eval|play|export) ([^`#|\n]*)", page.read_text(encoding="utf-8")):
        given = set(re.findall(r"(?:^| )([a-z_.]+)=", words))
        known = yaml.safe_load((catalogue.conf_dir() / f"{command}.yaml").read_text(encoding="utf-8"))
        assert "env" in given or given <= known.keys() | {"key"}, (command, words)  # env=NAME: also those of training


def test_configuration_lists_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", prose(DOCS / "configuration.md"), re.MULTILINE)
    listed = {name for name, _ in rows} | set(re.findall(r"`(network\.torso\.\w+)=", prose(DOCS / "configuration.md")))
    wanted = {name for name in keys() if not name.endswith("_target_") and not name.startswith("env.kwargs.")}
    assert wanted - listed == set()
    for name, default in rows:
        if name in wanted:
            assert re.sub(r"[\s']", "", default) in keys()[name], name


def test_configuration_lists_every_option_tuned_file_and_key_of_a_command() -> None:
    page = prose(DOCS / "configuration.md")
    for group in catalogue.groups():
        if group.startswith("tuned"):
            continue
        for option in catalogue.options(group):
            assert f"`{option}`" in page, f"{group}={option}"
    for file in (catalogue.conf_dir() / "tuned").glob("*/*.yaml"):
        assert f"[{file.parent.name}/{file.stem}](" in page, file
    for verb in ("eval", "export", "play"):
        section = page.partition(f"## Keys of `rlrun {verb}`")[2].partition("\n## ")[0]
        for name, _ in leaves(yaml.safe_load((catalogue.conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8")), []):
            if not name.startswith("env."):
                assert f"| `{name}` |" in section, f"rlrun {verb} {name}"


@pytest.mark.parametrize(
    "words",
    [
        "agent=ppo env=cartpole rollout_steps=8",
        "agent=a2c env=cartpole rollout_steps=8",
        "agent=pqn env=cartpole rollout_steps=8",
        "agent=reinforce env=cartpole",
        "agent=ppo env=frozenlake rollout_steps=8 log.every_steps=32",
        "agent=q_learning env=frozenlake",
        "agent=sac env=pendulum learning_starts=10 batch_size=8",
        "agent=td3 env=pendulum learning_starts=10 batch_size=8",
        "agent=rainbow env=cartpole learning_starts=10 batch_size=8 learn_every_steps=8 updates_per_learn=1",
    ],
)
def test_every_metric_that_a_run_logs_is_explained(words: str, workdir: Path) -> None:
    assert rlrun("train", *words.split(), "total_steps=64", "eval.episodes=1", "num_threads=1").code == 0
    with (only_run() / "metrics.csv").open(encoding="utf-8") as file:
        logged = {row["name"] for row in csv.DictReader(file)}
    explained = set(re.findall(r"`([a-z]+/[a-z0-9_]+)`", prose(DOCS / "metrics.md")))
    assert {name for name in logged if name.startswith(("learn/", "explore/", "exact/"))} - explained == set()


def test_the_code_to_copy_trains_and_is_resumed(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "extending.md"
    for text in (*blocks(page, "python"), *blocks(page, "yaml")):
        name = re.search(r"^# (\S+\.(?:py|yaml))$", text, re.MULTILINE)
        assert name
        Path(name[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(name[1]).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(workdir))
    for words in commands(page):
        if any("my_" in word for word in words):
            short = ["total_steps=300"] if "agent=linear_sarsa" in words else SHORT
            done = rlrun("train", *words, *short, "eval.episodes=1")
            assert done.code == 0, (words, done.err)
    trust = "trust=[linear_sarsa]"
    done = rlrun("train", "resume=latest", "total_steps=400", trust)
    assert done.code == 0, done.err
    assert rlrun("eval", "latest", "episodes=2", trust).code == 0
