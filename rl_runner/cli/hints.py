"""Suggest what was probably meant by a wrong word of a command line. Nothing heavy is imported."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rl_runner import catalogue
from rl_runner.cli import keys
from rl_runner.cli.table import VERBS, Verb

SHOWN = 6  # options in one line
GYM_ID = re.compile(r"[\w:.-]+(/[\w.-]+)?-v\d+")
VERB_ALIASES = {
    "eval": ("evaluate", "test", "score", "benchmark"),
    "export": ("onnx", "convert", "publish", "push", "upload", "deploy"),
    "play": ("watch", "enjoy", "render", "show", "video", "demo"),
    "train": ("run", "learn", "fit", "start"),
    "doctor": ("check", "lint", "diagnose", "validate", "dry-run", "dryrun", "estimate"),
    "train resume=RUN": ("resume", "continue"),
    "train -m": ("sweep", "multirun", "tune"),
    "compare": ("report", "table", "aggregate"),
    "plot": ("curves", "curve", "draw", "figure"),
    "runs": ("list", "ls", "status"),
    "runs rm": ("rm", "remove", "delete"),
}
ALIASES = {  # what other libraries call a key
    "agent": ("algo", "algorithm", "method", "model"),
    "agent.actor_lr": ("policy_lr",),
    "agent.alpha": ("ent_coef",),
    "agent.clip": ("clip_range", "clip_coef", "clip_ratio"),
    "agent.clip_grad_norm": ("max_grad_norm", "grad_clip"),
    "agent.clip_value": ("clip_range_vf",),
    "agent.double": ("double_dqn", "double_q"),
    "agent.entropy_coef": ("ent_coef",),
    "agent.epochs": ("n_epochs", "update_epochs"),
    "agent.gamma": ("discount", "discount_factor"),
    "agent.lam": ("gae_lambda", "lambda"),
    "agent.lr": ("alpha",),
    "agent.normalize_advantages": ("norm_adv", "normalize_advantage"),
    "agent.normalize_rewards": ("norm_reward",),
    "agent.policy_delay": ("policy_frequency",),
    "agent.target_noise": ("target_policy_noise", "policy_noise"),
    "agent.target_noise_clip": ("noise_clip",),
    "agent.value_coef": ("vf_coef",),
    "batch_size": ("batch", "minibatch_size"),
    "checkpoint.every_steps": ("save_freq", "save_every"),
    "device": ("gpu", "cuda"),
    "env": ("environment", "env_name"),
    "env.frame_skip": ("frameskip",),
    "env.game": ("rom",),
    "env.id": ("env_id", "gym_id"),
    "env.kwargs": ("env_kwargs",),
    "env.num_envs": ("n_envs",),
    "eval.episodes": ("n_eval_episodes", "eval_episodes"),
    "eval.every_steps": ("eval_freq", "eval_every"),
    "exploration.end": ("epsilon", "eps", "epsilon_end", "exploration_final_eps", "end_e"),
    "exploration.start": ("epsilon_start", "exploration_initial_eps", "start_e"),
    "exploration.steps": ("epsilon_steps", "epsilon_decay", "exploration_fraction"),
    "hydra.run.dir": ("dir", "output_dir", "outdir", "logdir", "log_dir"),
    "learn_every_steps": ("train_freq", "train_frequency"),
    "network": ("policy", "net", "architecture", "arch"),
    "network.critics": ("n_critics",),
    "network.normalize": ("norm_obs", "normalize_observations"),
    "network.torso.sizes": ("net_arch", "hidden_sizes", "hidden_layers", "width", "widths", "layers"),
    "network/torso": ("torso",),
    "num_threads": ("threads", "n_threads"),
    "optimizer": ("optim",),
    "optimizer.lr": ("lr", "learning_rate", "learningrate", "q_lr"),
    "replay": ("buffer",),
    "replay.capacity": ("buffer_size", "memory", "memory_size", "replay_size", "size"),
    "reward_clip": ("clip_reward", "clip_rewards"),
    "rollout_steps": ("n_steps", "num_steps"),
    "seed": ("random_seed",),
    "sync.every_steps": ("target_update_interval", "target_network_frequency"),
    "sync.every_updates": ("target_update",),
    "sync.tau": ("polyak",),
    "total_steps": ("steps", "n_steps", "num_steps", "max_steps", "timesteps", "n_timesteps", "total_timesteps"),
    "tuned": ("preset",),
    "updates_per_learn": ("gradient_steps",),
}
GROUPS = ("agent", "network", "network/torso", "value", "exploration", "replay", "sync", "optimizer", "env")
COMMON = ("auto", "hard", "none", "scalar", "soft", "uniform")  # options whose names do not tell their group
UNLIKE = {  # keys of other libraries whose values have another unit
    "epsilon_decay": "the number of steps in which epsilon falls, not a factor",
    "exploration_fraction": "a number of steps, not a fraction of total_steps",
}
RENAMED = {  # options that other libraries or the lectures have, as words of rlrun
    ("agent", "a3c"): "agent=a2c",
    ("agent", "c51"): "agent=dqn value=c51",
    ("agent", "ddqn"): "agent=dqn agent.double=true",
    ("agent", "double_dqn"): "agent=dqn agent.double=true",
    ("agent", "dueling"): "agent=dqn network=dueling",
    ("agent", "dueling_dqn"): "agent=dqn network=dueling",
    ("agent", "iqn"): "agent=dqn value=iqn",
    ("agent", "m_dqn"): "agent=dqn agent.munchausen=true",
    ("agent", "munchausen_dqn"): "agent=dqn agent.munchausen=true",
    ("agent", "noisy_dqn"): "agent=dqn network=noisy",
    ("agent", "qr_dqn"): "agent=dqn value=qr_dqn",
    ("agent", "vpg"): "agent=reinforce",
    ("experiment", "pong_fast"): "env=pong",  # a published result's name
    ("replay", "her"): "replay=uniform replay.hindsight=0.8",
    ("replay", "per"): "replay=prioritized",
}


# Words of a command line.


def unknown_verb(word: str, rest: Sequence[str], plain: Sequence[str] = ()) -> str:
    """Return what is wrong with a command line that does not begin with a verb.

    Args:
        word: the first word.
        rest: the others.
        plain: the verbs that need no configuration.
    """
    train = VERBS["train"]
    meant = _setting(train, word, rest) if word.startswith("-") else word if "=" in word else _option(train, word)
    if meant:
        return f"the verb is missing, one of {', '.join(VERBS)}; did you mean rlrun train {meant}?"
    for verb, aliases in VERB_ALIASES.items():
        if word.lower() in aliases:
            return f"unknown verb {word!r}; did you mean {verb}?"
    return f"unknown verb {word!r}; {did_you_mean(word.lower(), [*VERBS, *plain])}"


def unknown_option(verb: Verb, word: str, rest: Sequence[str], options: Sequence[str]) -> str:
    """Return what is wrong with a word that begins with "-" and is no option: often a key, typed as an option.

    Args:
        verb: the verb.
        word: the word.
        rest: the words after it.
        options: those that there are.
    """
    name = word.partition("=")[0]
    if meant := _setting(verb, word, rest):
        return f"there is no option {name!r}; keys are set without dashes: {meant}"
    return f"there is no option {name!r}; {did_you_mean(name, options)}"


def no_override(verb: Verb, word: str) -> str:
    """Return what is wrong with a word that sets nothing."""
    wrong = f"{word!r}: must be key=value"
    if meant := _choice(verb, word):
        return f"{wrong}; did you mean {meant}?"
    if verb.runs and (word == "latest" or Path(word).is_dir()):
        return f"{wrong}; did you mean {verb.runs[0]}={word}?"
    key = meant_key(word, keys.names(verb), fuzzy=False)
    return f"{wrong}, without spaces: {key}=..." if key else wrong


def no_run(verb: Verb, word: str) -> str | None:
    """Return what is wrong with a word in the place of a run that names an environment instead, else None."""
    meant = _choice(verb, word)
    random = ", a random agent" if verb.name == "play" else ""
    return f"{word}: no such run; did you mean {meant}{random}?" if meant else None


# Keys and options of groups, which Hydra did not find.


def unknown_key(verb: Verb, key: str, value: str, known: Sequence[str]) -> str:
    """Return what is wrong with a key that the configuration does not have.

    Args:
        verb: the verb.
        key: the key.
        value: its value.
        known: the keys that there are.
    """
    if key in ("render", "video") and not verb.argument:
        return f"there is no key {key!r}; training is not shown, a trained agent is: rlrun play RUN"
    others = [name for name in keys.names(verb) if name not in known]  # of options that are not chosen
    if key in others:
        group, _, leaf = key.rpartition(".")
        deeper = [
            name for name in keys.names(verb) if group and name.startswith(f"{group}.") and name.endswith(f".{leaf}")
        ]
        also = "".join(f"; {name}: {_options_with(verb, name)}" for name in deeper if name != key)
        if alias := _alias(group, leaf, known):
            return f"there is no key {key!r} with these options; did you mean {alias}={value}?"
        return f"there is no key {key!r} with these options; {_options_with(verb, key)}{also}"
    if key in known:  # with the first options of a sweep
        return f"there is no key {key!r} with all of these options; {_options_with(verb, key)}"
    if not meant_key(key, known, fuzzy=False) and (meant := meant_key(key, others, fuzzy=False)):
        return f"there is no key {key!r}; did you mean {meant}? {_options_with(verb, meant)}"
    if meant := meant_key(key, known):
        if unlike := UNLIKE.get(key):
            return f"there is no key {key!r}; did you mean {meant}, {unlike}?"
        setting = f"{meant}={value}" if meant_key(key, known, fuzzy=False) else meant
        return f"there is no key {key!r}; did you mean {setting}?"
    group = key.partition(".")[0]
    topic = f" {group}" if group != key and any(name.startswith(f"{group}.") for name in known) else ""
    return f"there is no key {key!r}; rlrun {verb.name} --help{topic} lists the keys"


def _options_with(verb: Verb, key: str) -> str:
    having = [f"{group}={option}" for group in verb.all_groups() for option in keys.of_group(group).get(key, {})]
    listed = " or ".join(having if len(having) <= SHOWN else [*having[:SHOWN], "others"])
    return f"{listed} {'has' if len(having) == 1 else 'have'} it" if having else "choose others"


def meant_key(key: str, known: Sequence[str], fuzzy: bool = True) -> str | None:
    """Return the known key that was probably meant.

    Args:
        key: what was typed.
        known: the keys that there are.
        fuzzy: a similar key counts too, not only the same one in another place or under another library's name.
    """
    there = {*known, "hydra.run.dir"}
    key = key.lower().replace("-", "_")
    group, _, leaf = key.rpartition(".")
    if key in there:
        return key
    if alias := _alias(group, leaf, there):
        return alias
    inside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == group]
    if fuzzy and group and (near := _near(leaf, inside)):
        return f"{group}.{near}"
    same = [name for name in known if name.rpartition(".")[2] == leaf]
    if len(same) == 1 or (same and not group):
        return same[0]
    return _near(key, known) if fuzzy and not (group and inside) else None


def _alias(group: str, leaf: str, known: Collection[str]) -> str | None:
    """Return the known key that other libraries call `leaf`, if it was typed alone, in its group or in the agent's."""
    alias = next((name for name, words in ALIASES.items() if leaf in words and name in known), None)
    return alias if alias and group in ("", "agent", alias.rpartition(".")[0]) else None


def unknown_choice(group: str, option: str, options: Sequence[str], plugins: Mapping[str, str] | None = None) -> str:
    """Return what is wrong with an option that a group does not have.

    Args:
        group: the group.
        option: what was typed.
        options: those that there are.
        plugins: those of packages that may not be installed, each with its package.
    """
    further = {name: package for name, package in (plugins or {}).items() if name not in options}
    options = [*options, *further]
    wrong = f"{group}: there is no {option!r}"
    lower = option.lower().replace("-", "_")
    if group.partition("/")[0] == "env":
        whole = f"{group}/{option}".removeprefix("env/")
        if meant := _environment(whole) or _registered(whole):
            return f"env: there is no {whole!r}; did you mean {meant}?"
    if group.partition("/")[0] == "tuned":
        whole, files = f"{group}/{option}".removeprefix("tuned/"), catalogue.options("tuned")
        same = [file for file in files if file.rpartition("/")[2] == option]
        hint = f"there is {', '.join(same)}" if same else did_you_mean(whole, files)
        return f"tuned: there is no {whole!r}; {hint}"
    if meant := RENAMED.get((group, lower)):
        return f"{wrong}; did you mean {meant}?"
    if lower in options:
        return f"{wrong}; did you mean {lower}?"
    others = (one for one in GROUPS if one != group and lower in catalogue.options(one) and lower not in COMMON)
    if other := next(others, None):
        return f"{wrong}; did you mean {other}={lower}?"
    if group == "optimizer" and (name := _in_torch(lower)):
        return f"{wrong}; did you mean optimizer._target_=torch.optim.{name}?"
    listed = [f"{name} (pip install {further[name]})" if name in further else name for name in options]
    return f"{wrong}; {did_you_mean(lower, options, listed)}"


def did_you_mean(word: str, known: Sequence[str], listed: Sequence[str] | None = None) -> str:
    """Return the known word that was probably meant, or all of them, as in `listed` if that is given."""
    near = _near(word, known)
    return f"did you mean {near}?" if near else f"must be one of {', '.join(listed or known)}"


def _near(word: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.65)
    return near[0] if near else None


def _setting(verb: Verb, word: str, rest: Sequence[str]) -> str | None:
    """Return the override that was typed as an option: --env=pong, --env pong, -seed 3."""
    name, equals, value = word.lstrip("-").partition("=")
    key = meant_key(name, keys.names(verb), fuzzy=False)
    if not key:
        return None
    if not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]:
        value = rest[0]
    if key == "env" and (meant := _environment(value)):
        return meant
    return f"{key}={value or '...'}"


def _choice(verb: Verb, word: str) -> str | None:
    """Return group=option for a word that names an option, or more or less an environment."""
    if "env" not in verb.all_groups():
        return None
    near = _near(word.lower(), catalogue.options("env"))
    return _option(verb, word) or (f"env={near}" if near else None)


def _option(verb: Verb, word: str) -> str | None:
    """Return group=option for a word that is an option of a group, or the id of an environment."""
    if meant := _environment(word):
        return meant
    groups = sorted(verb.all_groups(), key=lambda group: (group not in ("env", "agent"), group == "ablation", group))
    chosen = (group for group in groups if word.lower() in catalogue.options(group))
    group = next(chosen, None)
    return f"{group}={word.lower()}" if group else None


def _environment(word: str) -> str | None:
    """Return how an environment is chosen that was named by its id in Gymnasium, such as CartPole-v1 or ALE/Pong-v5."""
    if not GYM_ID.fullmatch(word):
        return None
    from gymnasium import registry

    name = catalogue.without_version(word)
    others = [spec for spec in registry.values() if not str(spec.entry_point).startswith("ale_py")]
    own = any(catalogue.without_version(spec.id) == name for spec in others)  # Blackjack is a game of Atari too
    if not own and (game := catalogue.atari_option(word)):
        return game
    for option in catalogue.options("env"):
        ids = [key.value for key in keys.of_option("env", option) if key.name == "env.id"]
        if ids and catalogue.without_version(ids[0]) == name:
            return f"env={option}"
    return (None if word in registry else _registered(name)) or f"env=gym env.id={word}"


def _registered(name: str) -> str | None:
    """Return how an environment of Gymnasium is chosen, named without its version and in any case, such as taxi."""
    from gymnasium import registry

    same = [spec for spec in registry.values() if not spec.namespace and spec.name.lower() == name.lower()]
    newest = max(same, key=lambda spec: spec.version or 0, default=None)
    return f"env=gym env.id={newest.id}" if newest else None


def _in_torch(name: str) -> str | None:
    """Return the name of a torch.optim class, whatever its case."""
    from torch import optim

    return next((cls for cls, value in vars(optim).items() if cls.lower() == name and isinstance(value, type)), None)
