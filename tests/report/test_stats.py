"""Statistics over runs, against SciPy, naive loops and numbers worked by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rl_runner.report import stats

X = [np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.0, 10.0, 4.0])]
Y = [np.array([2.0, 0.5]), np.array([4.0, 4.0, -1.0, 20.0])]
RLIABLE = json.loads((Path(__file__).parent / "rliable" / "numbers.json").read_text())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 30])
def test_the_iqm_is_scipys_trimmed_mean(n: int) -> None:
    scores = [np.random.default_rng(n).normal(size=n), np.random.default_rng(n + 1).normal(size=n)]
    assert stats.iqm(scores) == pytest.approx(scipy_stats.trim_mean(np.concatenate(scores), 0.25), abs=1e-13)


def test_the_iqm_by_hand() -> None:
    # 0 1 | 2 3 4 100 without 8 / 4 = 2 at each end of 0 1 2 3 4 5 6 100: (2 + 3 + 4 + 5) / 4
    assert stats.iqm([np.array([5.0, 0.0, 100.0, 3.0]), np.array([1.0, 2.0, 4.0, 6.0])]) == 3.5


def test_the_mean_and_the_median_over_environments() -> None:
    scores = [np.array([1.0, 3.0]), np.array([10.0]), np.array([3.0, 4.0, 5.0])]
    assert stats.mean(scores) == pytest.approx((2 + 10 + 4) / 3)
    assert stats.median(scores) == 4


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    wins = []
    for x, y in zip(X, Y, strict=True):
        pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(x, y)]
        wins.append(sum(pairs) / len(pairs))
        assert wins[-1] == pytest.approx(scipy_stats.mannwhitneyu(x, y).statistic / len(x) / len(y))
    assert stats.improvement(X, Y) == pytest.approx(sum(wins) / 2)
    assert stats.improvement(X, X) == pytest.approx(0.5)
    assert stats.improvement(Y, X) == pytest.approx(1 - sum(wins) / 2)


def test_the_profile_counts_runs_above_a_threshold() -> None:
    thresholds = np.array([-5.0, 1.0, 2.0, 3.5, 20.0])
    naive = [sum(sum(v > t for v in s) / len(s) for s in X) / 2 for t in thresholds]
    np.testing.assert_allclose(stats.profile(X, thresholds), naive)
    assert stats.profile(X, thresholds)[0] == 1


def of_environments(name: str) -> stats.Strata:
    return list(np.array(RLIABLE["scores"][name]).T)


@pytest.mark.parametrize("name", ["x", "y"])
def test_scores_and_intervals_are_those_of_rliable(name: str) -> None:
    scores = of_environments(name)
    for i, statistic in enumerate((stats.mean, stats.median, stats.iqm)):
        assert statistic(scores) == pytest.approx(RLIABLE["mean, median, iqm"][name][i], abs=1e-12)
        interval = stats.bootstrap(statistic, scores, 50_000)
        np.testing.assert_allclose(interval, RLIABLE["their intervals"][name][i], atol=0.01)


@pytest.mark.parametrize("name", ["x", "y"])
def test_profiles_and_bands_are_those_of_rliable(name: str) -> None:
    scores, thresholds = of_environments(name), np.array(RLIABLE["thresholds"])
    np.testing.assert_allclose(stats.profile(scores, thresholds), RLIABLE["profiles"][name], atol=1e-12)
    bands = stats.bootstrap(lambda drawn: stats.profile(drawn, thresholds), scores, 50_000)
    np.testing.assert_allclose(np.transpose(bands), RLIABLE["their bands"][name], atol=0.01)


def test_the_probability_of_improvement_is_that_of_rliable() -> None:
    x, y = of_environments("x"), of_environments("y")
    point, low, high = RLIABLE["improvement"]
    assert stats.improvement(x, y) == pytest.approx(point, abs=1e-12)
    both = stats.bootstrap(lambda drawn: stats.improvement(drawn[:4], drawn[4:]), [*x, *y], 50_000)
    np.testing.assert_allclose(both, (low, high), atol=0.01)


def test_the_bootstrap_of_three_runs_against_all_its_resamples() -> None:
    """Each of the 27 resamples of three runs is as likely as the others; so are their pairs over two environments."""
    scores = [np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 10.0])]
    every = [[sum(drawn) / 3 for drawn in itertools.product(s, repeat=3)] for s in scores]
    exact = np.quantile([(a + b) / 2 for a, b in itertools.product(*every)], (0.025, 0.975))
    np.testing.assert_allclose(stats.bootstrap(stats.mean, scores, 50_000), exact, atol=0.1)


def test_runs_are_drawn_within_their_environment() -> None:
    """Drawn over both, the share of each environment would vary, and the mean with it."""
    scores = [np.zeros(4), np.full(2, 100.0)]
    assert stats.bootstrap(stats.mean, scores, 200) == (50, 50)
    assert stats.bootstrap(stats.iqm, scores, 200)[0] == stats.bootstrap(stats.iqm, scores, 200)[1]


def test_the_bootstrap_of_a_statistic_with_several_values() -> None:
    thresholds = np.array([0.5, 2.5])
    low, high = stats.bootstrap(lambda scores: stats.profile(scores, thresholds), X, 500)
    assert low.shape == high.shape == (2,)
    assert (low <= stats.profile(X, thresholds)).all()
    assert (stats.profile(X, thresholds) <= high).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = [np.random.default_rng(0).normal(size=9)]
    assert stats.bootstrap(stats.iqm, scores) == stats.bootstrap(stats.iqm, scores)
    assert stats.bootstrap(stats.iqm, scores, seed=0) != stats.bootstrap(stats.iqm, scores, seed=1)


def test_no_interval_of_fewer_than_three_runs() -> None:
    assert stats.estimate(stats.mean, [np.array([1.0, 3.0])]) == (2, None, None)
    assert stats.estimate(stats.mean, [np.array([1.0, 1.0, 1.0])]) == (1, 1, 1)
    assert stats.estimate(stats.mean, [np.arange(9.0), np.array([1.0, 3.0])]).low is None


def test_the_band_of_five_runs_against_all_its_resamples() -> None:
    runs = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 20.0]])
    every = [runs[list(drawn)].mean(axis=0) for drawn in itertools.product(range(5), repeat=5)]
    mean, low, high = stats.mean_and_band(list(runs))
    np.testing.assert_allclose(mean, [3, 4])
    np.testing.assert_allclose([low, high], np.quantile(every, (0.025, 0.975), axis=0), atol=0.15)
    np.testing.assert_allclose(stats.mean_and_band(list(runs[:4])), [[2.5, 0], [1, 0], [4, 0]])


def test_the_detectable_difference_is_found_in_four_of_five_experiments() -> None:
    a, b = [0.0, 1.0, 2.0], [5.0, 6.0, 7.0, 8.0]
    found = stats.detectable_difference(a, b)
    assert found is not None
    # The pooled variance: (2 * 1 + 3 * 5 / 3) / 5.
    spread = math.sqrt(7 / 5)
    shift = found / spread / math.sqrt(1 / 3 + 1 / 4)
    critical = scipy_stats.t.ppf(0.975, 5)
    assert scipy_stats.nct.sf(critical, 5, shift) == pytest.approx(0.8, abs=1e-6)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, spread, (20_000, 3)), rng.normal(found, spread, (20_000, 4))
    assert np.mean(scipy_stats.ttest_ind(x, y, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.015)
    assert stats.detectable_difference([1.0], b) is None
