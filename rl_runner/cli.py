"""`rlrun VERB ...`: the only reader of sys.argv. Hydra does the rest, after the verb was taken away."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_runner import __version__, streams, usage

if TYPE_CHECKING:
    from rl_runner.commands.train import TrainJob
    from rl_runner.jobs import Failure
    from rl_runner.runs import RunDirectory

# Heavy imports (hydra, torch) are inside the functions that need them, so that help answers at once.

BARE_ARGUMENT = {"train": None, "eval": "checkpoint", "play": "checkpoint"}
PATHS = {"train": ("resume",), "eval": ("checkpoint",), "play": ("checkpoint", "video")}
OPTIONS: dict[str, tuple[str, ...] | None] = {  # of Hydra's, that every verb takes: None or what may follow
    "--multirun": None,
    "-m": None,
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--resolve": None,
    "--package": ("PACKAGE",),
    "-p": ("PACKAGE",),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "-i": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--config-dir": ("DIRECTORY",),
    "-cd": ("DIRECTORY",),
}
PLUGINS = {  # that Hydra's launchers and sweepers come with
    "hydra/launcher=joblib": "'rlrun[sweep]'",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/launcher=ray_aws": "hydra-ray-launcher",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
}


class WrongLine(Exception):
    """A command line that cannot be meant; said before anything heavy is imported."""


def main() -> None:
    """Run the command line. Exit with 0, 2 for bad input, 1 for a bug or a full disk, 128 + a signal's number."""
    # Threads that wait for each other should spin for a moment, then sleep. Sleeping at once makes steps on images a
    # quarter slower on two idle cores; spinning for long, which is GNU OpenMP's default, made an update take 550 ms
    # instead of 30 beside other work. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    streams.protect()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line, without the program's name; give the exit status."""
    if "--shell-completion" in args or "-sc" in args:
        return _complete(args)
    if not args or args[0] in ("-h", "--help"):
        print(usage.overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"rlrun {__version__}")
        return 0
    verb, *rest = args
    if verb not in usage.VERBS:
        return _complain(f"unknown verb {verb!r}; {usage.did_you_mean(verb, list(usage.VERBS))}")
    if "-h" in rest or "--help" in rest:
        print(usage.verb_help(verb))
        return 0
    try:
        prepared = _prepare(verb, rest)
    except WrongLine as e:
        return _complain(str(e))
    # Like `python -m`, so that a module in the current directory can be named as a network or an environment.
    sys.path.append(os.getcwd())
    return _run_verb(verb, prepared)


# From a command line to a Hydra application.


def _prepare(verb: str, args: list[str]) -> list[str]:
    """Give the arguments as Hydra wants them, its options first."""
    options, words = _split(args)
    if {"--cfg", "-c"} & set(options) and "--resolve" not in options:
        options.append("--resolve")  # so that every default is seen, not where it comes from
    if {"--multirun", "-m"} & set(options) and any(word.startswith("resume=") for word in words):
        raise WrongLine("resume: one run at a time; leave out --multirun")
    several = bool({"--multirun", "-m"} & set(options))
    return options + _bare(verb, [_override(verb, word, several) for word in words])


def _bare(verb: str, words: list[str]) -> list[str]:
    """Join the runs that are named one after the other into one list; only `rlrun eval` takes several."""
    key = BARE_ARGUMENT[verb]
    named = [word for word in words if key and word.startswith(f"{key}=")]
    if len(named) < 2:
        return words
    values = [word.partition("=")[2] for word in named]
    if verb != "eval":
        raise WrongLine(f"{key}: {verb} takes one run at a time, got {' and '.join(values)}")
    return [f"{key}=[{','.join(values)}]", *(word for word in words if word not in named)]


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """Give the options, each followed by its value, and all other words."""
    options: list[str] = []
    words: list[str] = []
    rest = iter(args)
    for arg in rest:
        if not arg.startswith("-"):
            words.append(arg)
            continue
        name, equals, value = arg.partition("=")
        if name not in OPTIONS:
            raise WrongLine(f"there is no option {name!r}; {usage.did_you_mean(name, list(OPTIONS))}")
        options.append(name)
        if choices := OPTIONS[name]:
            value = value if equals else next(rest, "")
            if value not in choices if len(choices) > 1 else not value:
                raise WrongLine(f"{name}: {' or '.join(choices)} is wanted, got {value!r}")
            options.append(value)
    return options, words


def _override(verb: str, word: str, several: bool = False) -> str:
    """Return one word in Hydra's grammar.

    Args:
        verb: the verb.
        word: as typed.
        several: values between commas are several (--multirun).
    """
    key, equals, value = word.partition("=")
    bare = BARE_ARGUMENT[verb]
    if bare and (not (equals or word.startswith(("+", "~"))) or Path(word).is_dir()):
        return f"{bare}={_paths(word, several)}"
    if not re.fullmatch(r"~.+|(\+\+?)?[^=+~\s]+=.*", word, re.DOTALL):
        group = next((g for g in usage.groups() if word in usage.options(g).split()), None)
        raise WrongLine(f"{word!r}: key=value is wanted" + (f"; did you mean {group}={word}?" if group else ""))
    if key in PATHS[verb]:
        return f"{key}={_paths(value, several)}"
    if key.startswith("env.kwargs."):  # an environment's own arguments: new keys, which need no + here
        return f"++{word}"
    if "/" in key and "." in key:  # network/torso._target_=...: the slash of a group, the dot of a value
        return f"{key.replace('/', '.')}={value}"
    return word


def _paths(value: str, several: bool) -> str:
    """Quote a path, or with `several` each of those between commas, unless a path has commas in its name."""
    if several and "," in value and value[0] not in "'\"[" and not Path(value).exists():
        return ",".join(map(_quote, value.split(",")))
    return _quote(value)


def _quote(path: str) -> str:
    """Quote a path for Hydra's grammar, unless it is quoted already, null or empty."""
    if path in ("", "null") or path[0] in "'\"":
        return path
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), path)
    return "'" + escaped.replace("${", "\\${") + "'"


def _run_verb(verb: str, args: list[str]) -> int:
    import hydra

    from rl_runner import launching

    plugins = str(Path(__file__).parent / "plugins")  # Hydra finds hydra/launcher=processes there
    if plugins not in sys.path:
        sys.path.append(plugins)
        # The processes of a launcher, wherever it starts them, unpickle what Hydra knows of it.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), plugins]))

    work: Callable[[Any], float | None] = {"train": _train, "eval": _eval, "play": _play}[verb]
    task = launching.Task(work, functools.partial(_failure, verb, args), noted=verb == "train")

    def start() -> None:
        sys.argv = ["rlrun", *args, *_short_names(args)]
        with _evaluations_at_the_end():
            hydra.main(version_base="1.3", config_path=str(usage.conf_dir()), config_name=verb)(task)()

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing them and exiting
    return launching.run(start, task, multirun=bool({"-m", "--multirun"} & set(args)))


def _short_names(args: list[str]) -> list[str]:
    """Have the directories of a sweep named after what differs between its jobs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    _, words = _split(args)
    same = [o.key_or_group for o in OverridesParser.create().parse_overrides(words) if not o.is_sweep_override()]
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(_quote, same))}]"]


# The verbs.


def _refuse_chdir() -> None:
    """Check that Hydra left the job in the user's directory: the paths of a command line are relative to that.

    Raises:
        UserError: hydra.job.chdir is true.
    """
    from hydra.core.hydra_config import HydraConfig

    from rl_runner import launching
    from rl_runner.runs import RunDirectory
    from rl_runner.types import UserError

    config = HydraConfig.get()
    if config.job.chdir:
        os.chdir(config.runtime.cwd)
        RunDirectory(launching.shortest(Path(config.runtime.output_dir))).discard()  # Hydra has made it
        raise UserError("hydra.job.chdir: must be false: paths are relative to the directory that rlrun is started in")


def _train(cfg: Any) -> float:
    """Train; return the mean return of the last evaluation, for a sweeper that looks for the best."""
    from hydra.core.hydra_config import HydraConfig

    from rl_runner import jobs, launching
    from rl_runner.runs import RunDirectory

    _refuse_chdir()
    fresh = RunDirectory(launching.shortest(Path(HydraConfig.get().runtime.output_dir)))
    if cfg.resume is not None:
        fresh.discard()  # Hydra has made it
        with RunDirectory.resumed(cfg.resume) as run:
            _train_on(cfg, run, launching.overrides(), jobs.resumed(run.path))
    elif launching.in_sweep():
        run = _train_in_sweep(cfg, fresh)
    else:
        with RunDirectory.new(fresh.path) as run:
            _train_anew(cfg, run)
    return jobs.last_return(run.path)


@contextlib.contextmanager
def _kept(job: TrainJob) -> Iterator[None]:
    """Write a run's configuration again where its directory was moved or deleted, and checkpoints were written since.

    Without it they could be neither resumed nor evaluated.
    """
    from rl_runner import build

    try:
        yield
    finally:
        run = job.run
        if run.checkpoints.is_dir() and not run.config.exists():
            build.save_run_config(run, job.config)
            print(f"{run.path} was moved or deleted meanwhile; it now holds what was written since, and config.yaml")


def _train_anew(cfg: Any, run: RunDirectory) -> None:
    from rl_runner import build
    from rl_runner.commands.train import train

    try:
        job = build.train_job(build.plain(cfg), run)
        build.save_run_config(run, job.config)
    except BaseException:
        run.discard()
        raise
    with _kept(job):
        train(job)


def _train_on(cfg: Any, run: RunDirectory, changes: list[str], noted: AbstractContextManager[None]) -> None:
    from rl_runner import build
    from rl_runner.commands.train import train

    job = build.train_job(build.resumed_config(run, cfg, changes), run)
    build.save_run_config(run, job.config)
    with noted, _kept(job):
        train(job, resume=True)


def _train_in_sweep(cfg: Any, fresh: RunDirectory) -> RunDirectory:
    """Train a job of a sweep, from where an earlier attempt in the same sweep directory left it."""
    from hydra.core.hydra_config import HydraConfig

    from rl_runner import build, jobs, launching, trust
    from rl_runner.runs import RunDirectory as Run

    told = launching.overrides()
    path, state = jobs.find(Path(HydraConfig.get().sweep.dir), fresh.path, told)
    if path != fresh.path:
        fresh.discard()
    if state == jobs.FINISHED:
        print(f"{path}: finished already, nothing to do", flush=True)
        return Run(path)
    explain = functools.partial(_failure, "train", [])
    with jobs.claim(path, known=bool(state)) as run, jobs.noted(run.path, told, explain):
        if jobs.has_checkpoint(run):
            cfg.trust = [*cfg.trust, *trust.needed(build.plain(cfg))]  # the same words were just typed
            _train_on(cfg, run, [], contextlib.nullcontext())
        else:
            jobs.clear(run)
            _train_anew(cfg, run)
    return run


def _eval(cfg: Any) -> None:
    """Evaluate the run that is named, or each of several. One that cannot be evaluated does not lose the others."""
    from rl_runner import build
    from rl_runner.types import UserError

    _refuse_chdir()
    settings = build.plain(cfg)
    named = settings["checkpoint"]
    if not isinstance(named, list) or not named:
        _eval_one(settings)
        return
    failed: list[str] = []
    for name in named:
        try:
            _eval_one({**settings, "checkpoint": name})
        except Exception as e:
            line, trace, _ = _failure("eval", [], e)
            failed.append(line if line.startswith((f"{name}:", f"{name}/")) else f"{name}: {line}")
            if trace:
                print(trace, file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(named)} runs failed: {'; '.join(failed)}")


def _eval_one(settings: dict[str, Any]) -> None:
    from rl_runner import build, launching
    from rl_runner.commands import eval as command

    job = build.eval_job(settings)
    score = command.score(job)
    told = launching.overrides() if launching.in_sweep() else []
    words = [word for word in told if not word.startswith("checkpoint=")]
    _scores.append(([str(job.run.path), *words], score))
    command.write(job, score)


_scores: list[tuple[list[str], Any]] = []  # of this command line: of each evaluation, its run and keys, and its `Score`


@contextlib.contextmanager
def _evaluations_at_the_end() -> Iterator[None]:
    """Show the returns of several evaluations as one table, also if one of them fails."""
    _scores.clear()
    try:
        yield
    finally:
        if len(_scores) > 1:
            from rl_runner.commands import eval as command

            common = set.intersection(*(set(words) for words, _ in _scores))
            labels = [" ".join(word for word in words if word not in common) or words[0] for words, _ in _scores]
            command.show_all(labels, [score for _, score in _scores])


def _play(cfg: Any) -> None:
    from rl_runner import build
    from rl_runner.commands import play as command

    _refuse_chdir()
    command.run(build.play_job(build.plain(cfg)))


# What is shown.


def _complain(line: str) -> int:
    print(f"rlrun: {line}", file=sys.stderr)
    return 2


def _failure(verb: str, args: list[str], e: Exception) -> Failure:
    from rl_runner import launching

    return launching.failure_of(e, _explain(verb, args, e))


def _explain(verb: str, args: list[str], e: Exception) -> str:
    """Put an exception of Hydra's into one line that names the key and what would be right."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = re.sub(r" See https://hydra\.cc.*", "", " ".join(str(e).split()))
    if isinstance(e, OSError) and e.filename:
        return f"{e.filename}: {e.strerror}"
    if isinstance(e, MissingConfigException) and e.missing_cfg_file:
        group, _, option = e.missing_cfg_file.rpartition("/")
        if package := PLUGINS.get(f"{group}={option}"):
            return f"{group}={option} is not installed: pip install {package}"
        return f"{group}: there is no {option!r}; {usage.did_you_mean(option, list(e.options or []))}"
    if isinstance(e, OverrideParseException):
        return f"{e.override!r} cannot be read: {text}"
    if several := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text):
        return f"{several[1]}: one run for each of {several[2]} needs -m; a list is written [{several[2]}]"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]}: a value is needed"
    group_of_others = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group_of_others and verb == "train":
        return f"{group_of_others[1]}: the chosen agent has none; leave it out"
    if key := re.search(r"Could not override '([^']+)'", text):
        if key[1].startswith("network.torso."):
            return f"there is no key {key[1]!r} in this torso; choose one that has it, such as network/torso=mlp"
        return f"there is no key {key[1]!r}; {usage.did_you_mean(key[1], _known_keys(verb, args))}"
    return text


def _known_keys(verb: str, args: list[str]) -> list[str]:
    """Give all keys that could have been meant: those of the configuration that the chosen groups make, and groups."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from rl_runner.commands.train import flatten

    groups = {"train": usage.groups(), "eval": [], "play": ["env"]}[verb]
    ours = {f"{group}={option}" for group in groups for option in usage.options(group).split()}
    chosen = [arg for arg in args if arg in ours]
    with initialize_config_dir(str(usage.conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(verb, chosen), resolve=False)
    leaves = [key for key, _ in flatten(node) if "._" not in key]
    return sorted({*leaves, *groups, *(leaf.rpartition(".")[0] for leaf in leaves)} - {""})


def _complete(args: list[str]) -> int:
    """Serve the shell: install or uninstall the hook, or answer it, taking the verb from the line being typed."""
    import hydra

    words = os.environ.get("COMP_LINE", "").split()
    verb = words[1] if len(words) > 1 and words[1] in usage.VERBS else None
    if any(a.startswith("query=") for a in args):
        if verb is None:
            begun = words[1] if len(words) > 1 else ""
            print("\n".join(v for v in usage.VERBS if v.startswith(begun)))
            return 0
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {verb}", "", 1)
    sys.argv = ["rlrun", *args]
    hydra.main(version_base="1.3", config_path=str(usage.conf_dir()), config_name=verb or "train")(lambda cfg: None)()
    return 0
