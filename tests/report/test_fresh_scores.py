"""Which scores of `rlrun eval` runs are compared by."""

from pathlib import Path

from rl_runner.report import fresh_scores, runs
from tests.runs import a_run, an_evaluation


def test_the_kind_that_all_runs_have_of_their_own_protocol_and_with_the_most_episodes(tmp_path: Path) -> None:
    every = [runs.read(a_run(tmp_path / f"s{seed}", {300: 10.0}, {"seed": seed})) for seed in range(2)]

    def scores(prefix: str = "step_") -> tuple[list[float], str]:
        fresh = {run.path: runs.scores(run.path) for run in every}
        found, name = fresh_scores.common(every, fresh_scores.by_kind(every, fresh, prefix))
        return [found[run.path] for run in every if found], name

    assert scores() == ([], "")
    for run in every:
        other = an_evaluation(run.path, "step_000000300", 99.0, protocol={"eval_epsilon": 0.5}, episodes=500)
        other.rename(other.with_name("step_000000300_epsilon_0.5_seed_0.json"))
        an_evaluation(run.path, "best_000000300", 70.0)
        an_evaluation(run.path, "step_000000200", 60.0, step=200)  # not at the end
    assert scores() == ([99.0, 99.0], "rlrun eval, 500 episodes of fresh seeds (seed 0; eval_epsilon: 0.5)")
    an_evaluation(every[0].path, "step_000000300", 1.0)
    assert scores()[0] == [99.0, 99.0]  # the other one has none yet
    an_evaluation(every[1].path, "step_000000300", 2.0)
    assert scores() == ([1.0, 2.0], "rlrun eval, 100 episodes of fresh seeds (seed 0; eval_epsilon: 0.0)")
    for seed, run in enumerate(every):
        an_evaluation(run.path, "step_000000300", 5.0 + seed, episodes=200)
    assert scores()[0] == [5.0, 6.0]
    assert scores("best_")[0] == [70.0, 70.0]
