"""What `rlrun doctor` looks at: a training run that is built but not begun, or one that has trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rl_runner import memory, rng
from rl_runner.build import jobs, preflight, saved
from rl_runner.build.environments import backend, environments, raw_environment
from rl_runner.build.theirs import naming_their_code
from rl_runner.commands.doctor import Report
from rl_runner.commands.train import TrainJob
from rl_runner.doctor import environment, evaluations, planned, played, probe, speed, trained
from rl_runner.doctor.evaluations import Evaluations
from rl_runner.doctor.finding import Finding
from rl_runner.doctor.planned import Plan
from rl_runner.doctor.speed import Speed
from rl_runner.doctor.trained import Trained
from rl_runner.envs.gym import import_module
from rl_runner.evaluation import evaluate
from rl_runner.report.curves import Table, Unreadable, last_step, read_table
from rl_runner.run.checkpoint import Checkpoints, Damaged, check
from rl_runner.run.directory import RunDirectory
from rl_runner.run.lock import in_use
from rl_runner.run.terminal import size_in_words
from rl_runner.types import Evaluate, State, UserError

Facts = list[tuple[str, str]]
ENVS = 4  # that a saved agent plays in side by side


# A configuration.


def of_configuration(cfg: Any, directory: Path, words: list[str], seconds: float) -> Report:
    """Return what is found in the configuration that `rlrun train` would run. Nothing is written.

    Args:
        cfg: the configuration as Hydra composed it.
        directory: where a new run would go.
        words: the configuration's own words, as they were typed.
        seconds: to measure; 0: nothing is measured.

    Raises:
        UserError: what cannot even be built.
    """
    resumed = cfg.resume not in (None, saved.AUTO)  # auto: the check is that of a new run
    run = RunDirectory(directory)
    if resumed:
        run = RunDirectory.to_resume(cfg.resume)
        if next(Checkpoints(run.checkpoints).newest(), None) is None:
            raise UserError(f"resume: {run.path} holds no whole checkpoint")
    config = saved.resumed_config(run, cfg, words) if resumed else saved.plain(cfg)
    with naming_their_code(lambda: config):
        job = jobs.planned_job(config, run, resumed)
        with contextlib.closing(job.loop.envs):
            plan = preflight.plan(config, job.loop, run.path, resumed)
            found = planned.findings(plan, (*planned.CHECKS, planned.untuned))
            facts, numbers = _sizes(plan)
            facts = [*(row for row in job.facts if row[0] != "run"), *facts]
            if seconds and not _refused(found):
                probed = _probed(config)
                facts += probed.facts() if probed else []
                found += environment.findings(probed) if probed else []
            if seconds and not _refused(found):
                try:
                    measured, more = _measured(job, seconds)
                    facts, numbers = facts + measured, numbers | more
                except UserError as e:
                    found.append(environment.stopping(str(e)))
    return Report(facts, found, numbers)


def _refused(found: Sequence[Finding]) -> bool:
    return any(finding.refused for finding in found)


def _sizes(plan: Plan) -> tuple[Facts, State]:
    """Return what a run will take of memory and disk."""
    now, wanted = memory.resident(), sum(plan.memory.values())
    parts = " + ".join(f"{name} {size_in_words(size)}" for name, size in plan.memory.items() if size)
    free = f"{size_in_words(plan.free_memory)} are free" if plan.free_memory is not None else "what is free is unknown"
    process = f"{size_in_words(now)} in use" if now else "in use unknown"
    keep = int(plan.get("checkpoint.keep") or 1)
    at_once = (keep + 1) * plan.checkpoint
    disk = f"{size_in_words(plan.checkpoint)} a checkpoint at the end, at most {size_in_words(at_once)} at once"
    facts = [
        ("memory", f"{process}{f', will grow by {parts}' if parts else ''}; {free}"),
        ("disk", f"{disk}; {size_in_words(plan.free_disk or 0)} are free"),
    ]
    numbers = {
        "memory": {"process": now, "to_come": wanted, "free": plan.free_memory},
        "disk": {"checkpoint": plan.checkpoint, "at_once": at_once, "free": plan.free_disk},
    }
    return facts, numbers


def _measured(job: TrainJob, seconds: float) -> tuple[Facts, State]:
    """Measure some seconds of training and of evaluating; return how fast they are and how long the run will take."""
    cfg, total = job.config, job.plan.total_steps
    measured = speed.measure(job.loop, seconds, int(cfg["agent"].get("random_steps") or 0))
    hours = measured.hours(total, int(cfg.get("learning_starts") or 0))
    facts, numbers = [("speed", _in_words(measured))], State(evaluations=None)
    if hours is not None:
        evaluating = _evaluations(job, seconds / 5)
        facts += evaluating.facts(total, hours)
        numbers["evaluations"] = evaluating.numbers()
    peak = memory.resident()
    facts += [("memory", f"{size_in_words(peak)} in use after measuring")] if peak else []
    return facts, {"speed": {**measured._asdict(), "hours": hours, "threads": torch.get_num_threads()}, **numbers}


def _evaluations(job: TrainJob, seconds: float) -> Evaluations:
    """Measure some seconds of evaluating; return what the evaluations of a run will take."""
    cfg, total = job.config, job.plan.total_steps
    episodes, every = cfg["eval"]["episodes"], cfg["eval"]["every_steps"]
    num_envs = min(cfg["eval"]["num_envs"], episodes)
    mode = Evaluate(rng.generator(cfg["seed"], "doctor"), cfg["eval"]["epsilon"])
    with contextlib.closing(environments(cfg["env"], num_envs, cfg["seed"], "doctor")) as envs:

        def play(stopped: Callable[[], bool]) -> list[int]:
            return [episode.length for episode in evaluate(job.loop.agent, envs, num_envs, mode, stopped).episodes]

        measured = evaluations.measure(play, seconds)
    number = -(-total // every) if every else 1  # the last one at the end
    return Evaluations(number, episodes, -(-episodes // num_envs), *measured, preflight.time_limit(cfg["env"]))


def _in_words(measured: Speed) -> str:
    before = f"{measured.before_per_s:,.0f} steps/s before learning" if measured.before_per_s else ""
    if measured.steps_per_s is None:
        return ", ".join(
            filter(None, ["no update was due in the time that was measured; use a longer --seconds", before])
        )
    learning = f"{measured.steps_per_s:,.3g} steps/s with {measured.updates_per_s:,.3g} updates/s"
    if measured.steps_per_s >= 1000:
        learning = f"{measured.steps_per_s:,.0f} steps/s with {measured.updates_per_s:,.0f} updates/s"
    return ", ".join(filter(None, [f"{learning}, measured for {measured.seconds:.1f} s", before]))


def _probed(cfg: State) -> probe.Probe | None:
    """Try an environment that is not one of rlrun's or Gymnasium's own, as rlrun configures them."""
    node = cfg["env"]
    own = (
        node.get("imports") or node.get("wrappers") or node.get("name") == node.get("id") or ":" in str(node.get("id"))
    )
    if "id" not in node or not own:
        return None
    for module in node.get("imports") or []:
        import_module(module)
    single = {**node, "processes": False}
    return probe.probe(lambda: backend(single, 1), lambda: raw_environment(node, None), cfg)


# A run.


def of_run(name: str, trusted: list[str]) -> Report:
    """Return what is found in a run.

    Args:
        name: its directory, or latest.
        trusted: packages that its configuration may use.

    Raises:
        UserError: it is no run, or one whose configuration names other code.
    """
    path = RunDirectory.existing(name).path
    cfg = saved.load_run_config(RunDirectory(path), trusted)
    try:
        table = read_table(path)
    except Unreadable as e:
        raise UserError(str(e)) from e
    with naming_their_code(lambda: cfg):
        run, notes = _trained(path, cfg, table)
    facts = [("run", str(path)), ("step", f"{run.steps:,} of {int(cfg['total_steps']):,}"), *_seen(run), *notes]
    numbers = {"run": str(path), "steps": run.steps, "total_steps": int(cfg["total_steps"])}
    return Report(facts, trained.findings(run), numbers)


def _trained(path: Path, cfg: State, table: Table) -> tuple[Trained, Facts]:
    """Return what is known of a run: its numbers and, where there is a checkpoint, its agent."""
    logged = last_step(table)
    checkpoints = Checkpoints(RunDirectory(path).checkpoints)
    there = list(filter(None, [*checkpoints.newest(), checkpoints.best()]))
    damaged = {} if in_use(path) else _damaged(there)  # a run that is training deletes old ones meanwhile
    checkpoint = next((one for one in there if one not in damaged), None)
    if checkpoint is None:
        why, wrong = "no whole checkpoint" if there else "no checkpoint yet", list(damaged.values())
        return Trained(cfg, table, logged, damaged=wrong), [("", f"{why}: its agent is not looked at")]
    gamma, clip = float(cfg["agent"].get("gamma", 1.0)), cfg.get("reward_clip")
    envs = environments(cfg["env"], min(ENVS, cfg["eval"]["num_envs"]), cfg["seed"], "doctor")
    with contextlib.closing(envs):
        try:
            agent, _, step = jobs.saved_agent(cfg, envs, str(checkpoint), "best", "cpu")
        except UserError:
            if checkpoint.exists():
                raise
            return _trained(path, cfg, table)  # the run is training and has a newer one
        finite = preflight.finite(agent.state_dict())
        mode = Evaluate(rng.generator(cfg["seed"], "doctor"), cfg["eval"]["epsilon"])
        seen = played.play(agent, envs, mode, gamma, clip) if finite else None
    noisy = preflight.explores(getattr(agent, "network", None))
    return Trained(cfg, table, max(logged, step), finite, step, seen, noisy, list(damaged.values())), []


def _damaged(checkpoints: Sequence[Path]) -> dict[Path, str]:
    """Return the checkpoints that cannot be loaded, and why."""
    found = {}
    for path in checkpoints:
        try:
            check(path)
        except Damaged as e:
            found[path] = str(e)
    return found


def _seen(run: Trained) -> Facts:
    """Return what was measured of the agent, as rows of a table."""
    seen = run.played
    if seen is None:
        return []
    facts = [("agent", f"of step {run.saved:,}, played for {played.STEPS:,} steps")]
    if seen.dead:
        layers = ", ".join(f"{name} {dead / units:.0%} of {units}" for name, (dead, units) in seen.dead.items())
        facts.append(("dead units", layers))
    if len(seen.values) >= trained.STATES:
        facts.append(
            ("values", f"max Q {seen.values.mean():.4g}, realised return {seen.returns.mean():.4g} on average")
        )
    return facts
