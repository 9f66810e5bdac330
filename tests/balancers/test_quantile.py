"""Quantile balancing: the fixture, a naive twin, its fixed points, and histograms that miss the scores."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from balancesim.balancers import Delayed, NoBalance, QuantileBalance, registry
from balancesim.errors import InputError, RangeWarning
from balancesim.sources import FromFunction, Normal, Recorded
from tests import strategies
from tests.balancers.twins import Flipped, InPython, relaxed_optimum

FIXTURE = np.array([(0.9, 0.5), (0.8, 0.7), (0.7, 0.2), (0.6, 0.45)])
SOURCE = Normal(n_experts=6, offsets="iqr", seed=4)
TIED = FromFunction(lambda u: np.floor(8.0 * u) / 4.0, n_experts=5, seed=3)

COUNTEREXAMPLE = np.array([(0.25, 0.5, 1.0), (0.5, 0.0, 0.25), (0.5, 0.25, 0.0), (0.75, 0.0, 0.75)])


def one_update(rule, scores, k, price=None):
    """The bias after one batch that was routed with a price."""
    state = rule.init(scores.shape[1], k)
    if price is not None:
        state = state._replace(price=np.asarray(price, dtype=np.float64))
    state = rule.observe(state, scores)
    return rule.bias(rule.update(state, bs.route(scores, rule.bias(state), k=k).loads, None))


def naive_update(rule, scores, price, k):
    """theory.md's update by sorting; histograms by counting. The price may be one a token, (T, E)."""
    n_tokens, n_experts = scores.shape
    used = np.broadcast_to(price, scores.shape).astype(scores.dtype)
    biased = scores + used
    cutoffs = -np.sort(-biased, axis=1)[:, k].astype(np.float64)
    exact = scores.astype(np.float64)
    if rule.estimate == "histogram":
        low, high = float(used[0].min()) - rule.margin, float(used[0].max()) + rule.margin
        width = (high - low) / rule.n_bins
        place = np.floor((cutoffs[:, None] - exact - low) / width).astype(int).clip(0, rule.n_bins - 1)
        wanted = n_tokens * k / n_experts
        proposal = np.empty(n_experts)
        for e in range(n_experts):
            counts = np.bincount(place[:, e], minlength=rule.n_bins)
            total = np.cumsum(counts)
            i = int((total < math.ceil(wanted)).sum())
            proposal[e] = width * (i + (wanted - (total[i] - counts[i])) / counts[i])
    else:
        local = []
        for rank in range(rule.n_ranks):
            mine = slice(
                math.ceil(rank * n_tokens / rule.n_ranks), math.ceil((rank + 1) * n_tokens / rule.n_ranks)
            )
            part, border = exact[mine], cutoffs[mine]
            n, beta = len(part) * k // n_experts, np.zeros(n_experts)
            for sweep in range(rule.n_sweeps):
                if sweep > 0:
                    border = -np.sort(-(part - beta), axis=1)[:, k]
                lead = -np.sort(-(part - border[:, None]), axis=0)
                beta = lead[n]
                if rule.estimate == "midpoint" and len(part) * k % n_experts == 0:
                    beta = 0.5 * (lead[n - 1] + lead[n])
            local.append(beta)
        proposal = -np.mean(local, axis=0)
    proposal = proposal - proposal.mean()
    newest = np.broadcast_to(price, scores.shape)[-1]
    blended = (1.0 - rule.ema_rate) * newest + rule.ema_rate * proposal
    return blended - blended.mean()


VARIANTS = [
    QuantileBalance(),
    QuantileBalance(estimate="midpoint"),
    QuantileBalance(estimate="midpoint", n_sweeps=3),
    QuantileBalance(n_sweeps=2, ema_rate=0.25),
    QuantileBalance(n_ranks=3),
    QuantileBalance(n_ranks=4, n_sweeps=2, estimate="midpoint"),
    QuantileBalance(estimate="histogram", n_bins=50, margin=12.0),
    QuantileBalance(estimate="histogram", n_bins=7, margin=8.0, ema_rate=0.5),
]


@pytest.mark.parametrize(
    ("estimate", "bias", "loads", "value"),
    [("end", (-0.075, 0.075), None, None), ("midpoint", (-0.1375, 0.1375), [2, 2], 2.75)],
)
def test_theorys_fixture(estimate, bias, loads, value):
    unbalanced = bs.route(FIXTURE, k=1)
    assert unbalanced.loads.tolist() == [4, 0]
    assert unbalanced.score == pytest.approx(3.0, abs=1e-15)
    found = one_update(QuantileBalance(estimate=estimate), FIXTURE, 1)
    np.testing.assert_allclose(found, bias, atol=1e-15)
    if loads is None:  # the last token ties, by construction: .6 - .075 = .45 + .075
        biased = FIXTURE[3] + found
        assert biased[0] == pytest.approx(biased[1], abs=1e-15)
    else:
        routed = bs.route(FIXTURE, found, k=1)
        assert routed.loads.tolist() == loads
        assert routed.score == pytest.approx(value, abs=1e-15)


def test_the_fixtures_interval():
    for beta, balanced in ((0.14, False), (0.16, True), (0.39, True), (0.41, False)):
        loads = bs.route(FIXTURE, [-beta, 0.0], k=1).loads.tolist()
        assert (loads == [2, 2]) is balanced


@pytest.mark.parametrize("rule", VARIANTS, ids=lambda rule: rule.describe())
@given(batch=strategies.batches(max_tokens=40, max_experts=8))
def test_an_update_equals_naive(rule, batch):
    if rule.n_ranks > batch.scores.shape[0]:
        return
    price = batch.bias.astype(np.float64) - batch.bias.astype(np.float64).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        found = one_update(rule, batch.scores, batch.k, price)
    # Sums of some ten numbers of magnitude at most 2**5, in another order.
    np.testing.assert_allclose(found, naive_update(rule, batch.scores, price, batch.k), atol=1e-12)


@pytest.mark.parametrize("rule", VARIANTS, ids=lambda rule: rule.describe())
@pytest.mark.parametrize("source", [SOURCE, TIED], ids=["normal", "tied"])
def test_the_loop_has_the_bits_of_the_python_protocol(rule, source):
    short = {"n_tokens": 70, "k": 2, "horizon": 25, "n_records": 40, "n_exact": 0}
    inside, outside = bs.simulate([rule, InPython(rule)], source, **short)
    assert inside.bias.tobytes() == outside.bias.tobytes()
    assert inside.loads.tolist() == outside.loads.tolist()


@pytest.mark.parametrize("rule", VARIANTS[:3] + VARIANTS[6:7], ids=lambda rule: rule.describe())
@pytest.mark.parametrize(("every", "lag"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_a_run_with_delays_equals_naive(rule, every, lag):
    """A one-step delay is `Delayed` with a lag; batches that share an update are pooled by ``every``."""
    n_tokens, k, horizon = 40, 2, 14
    run = bs.simulate(
        Delayed(rule=rule, every=every, lag=lag),
        SOURCE, n_tokens=n_tokens, k=k, horizon=horizon, n_records=40, n_exact=0,
    )  # fmt: skip
    prices, newest, seen = [np.zeros(6)] * (lag + 1), np.zeros(6), []
    for step in range(horizon):
        scores, used = SOURCE.batch(step, n_tokens), prices[0]
        assert run.loads[step].tolist() == bs.route(scores, used.astype(np.float32), k=k).loads.tolist()
        seen.append((scores, np.tile(used, (n_tokens, 1))))
        if len(seen) == every:
            newest = naive_update(rule, *(np.concatenate(parts) for parts in zip(*seen, strict=True)), k)
            seen = []
        prices = [*prices[1:], newest]
        # Float32 cutoffs of magnitude at most 4; a histogram's bins are steps of 0.5 in those.
        np.testing.assert_allclose(run.bias[step], prices[0], atol=1e-6)


def iterate(rule, scores, k, n_most=4000):
    """Repeat one batch until the bias stays the same."""
    price = np.zeros(scores.shape[1])
    for _ in range(n_most):
        after = one_update(rule, scores, k, price)
        if np.abs(after - price).max() < 1e-14:
            return after
        price = after
    raise AssertionError("no fixed point")


class TestFixedPoints:
    """docs/theory.md, "Quantile balancing": where sweeps on one batch end."""

    @pytest.mark.parametrize("seed", range(8))
    def test_the_midpoint_ends_at_the_optimum_where_the_load_is_an_integer(self, seed):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(64, 8)) + rng.normal(size=8)
        optimum = bs.solve(scores, k=2)
        found = iterate(QuantileBalance(estimate="midpoint"), scores, 2)
        routed = bs.route(scores, found, k=2)
        assert routed.loads.tolist() == [16] * 8
        # Sums of 128 scores of magnitude at most 2**3: 128 * 2**3 * 2**-53 < 1e-12.
        assert routed.score == pytest.approx(optimum.value, abs=1e-11)
        assert bs.dual_value(scores, found, k=2) == pytest.approx(optimum.value, abs=1e-11)

    def test_the_published_end_stalls_on_the_same_batches(self):
        gaps, unbalanced = [], 0
        for seed in range(8):
            rng = np.random.default_rng(seed)
            scores = rng.normal(size=(64, 8)) + rng.normal(size=8)
            found = iterate(QuantileBalance(), scores, 2)
            gaps.append(bs.dual_value(scores, found, k=2) - bs.solve(scores, k=2).value)
            unbalanced += np.ptp(bs.route(scores, found, k=2).loads) > 0
        assert min(gaps) > -1e-9
        assert max(gaps) > 0.1
        assert unbalanced == 8

    @pytest.mark.parametrize("estimate", ["end", "midpoint"])
    def test_two_experts_reach_a_unique_dual(self, estimate):
        """Differences of the scores .75, .5, .25, .25, 0, 0: the third and the fourth are the same."""
        scores = np.array([(0.75, 0), (1, 0.5), (0.25, 0), (0.5, 0.25), (0.5, 0.5), (0.25, 0.25)])
        found = iterate(QuantileBalance(estimate=estimate), scores, 1)
        assert found.tolist() == [-0.125, 0.125]
        optimum = bs.solve(scores, k=1)
        np.testing.assert_allclose(found, optimum.bias - optimum.bias.mean(), atol=1e-12)
        assert bs.dual_value(scores, found, k=1) == optimum.value

    @pytest.mark.parametrize("estimate", ["end", "midpoint"])
    @pytest.mark.parametrize("n_tokens", [9, 31])
    def test_two_experts_reach_the_optimum_of_a_fractional_load(self, estimate, n_tokens):
        scores = np.random.default_rng(n_tokens).normal(size=(n_tokens, 2)) + np.array([1.0, 0.0])
        found = one_update(QuantileBalance(estimate=estimate), scores, 1)
        # Sums of at most 31 scores; the solver's own tolerance is 1e-9.
        assert bs.dual_value(scores, found, k=1) == pytest.approx(relaxed_optimum(scores, 1), abs=1e-7)

    def test_three_experts_stall_though_the_dual_is_unique(self):
        """theory.md's counterexample: no general statement about unique duals can be true."""
        scores, best = COUNTEREXAMPLE, [0.0, 0.5, 0.0]
        found = iterate(QuantileBalance(), scores, 1)
        np.testing.assert_allclose(one_update(QuantileBalance(estimate="midpoint"), scores, 1, found), found)
        np.testing.assert_allclose(found, [-1 / 12, 1 / 6, -1 / 12], atol=1e-12)
        gap = bs.dual_value(scores, found, k=1) - relaxed_optimum(scores, 1)
        assert gap == pytest.approx(1 / 12, abs=1e-7)
        assert bs.dual_value(scores, best, k=1) == pytest.approx(relaxed_optimum(scores, 1), abs=1e-7)
        # D is piecewise linear with breakpoints at quarters: a unique minimiser among eighths is unique.
        eighths = np.arange(-12, 13) / 8
        values = [bs.dual_value(scores, [0.0, a, b], k=1) for a in eighths for b in eighths]
        assert (np.array(values) < min(values) + 1e-9).sum() == 1


class TestRange:
    NARROW = QuantileBalance(estimate="histogram", n_bins=40, margin=0.5)

    def missed(self, horizon):
        """The fraction of needed biases outside the histogram, by hand."""
        outside, total, price = 0, 0, np.zeros(6)
        for step in range(horizon):
            scores = SOURCE.batch(step, 50)
            used = price.astype(np.float32)
            needed = -np.sort(-(scores + used), axis=1)[:, 2:3].astype(float) - scores
            outside += ((needed < used.min() - 0.5) | (needed > used.max() + 0.5)).sum()
            total += needed.size
            price = naive_update(self.NARROW, scores, price, 2)
        return outside / total

    def test_a_run_warns_once_with_the_fraction_missed(self):
        with pytest.warns(RangeWarning) as caught:
            bs.simulate(self.NARROW, SOURCE, n_tokens=50, k=2, horizon=8, n_exact=0)
        assert len(caught) == 1
        text = str(caught[0].message)
        assert f"missed {self.missed(8):.2%} of the biases" in text
        assert "`margin` = 0.5" in text
        assert 0.1 < self.missed(8) < 0.9

    def test_delayed_rules_pass_it_on(self):
        with pytest.warns(RangeWarning, match="missed"):
            bs.simulate(Delayed(rule=self.NARROW, lag=1), SOURCE, n_tokens=50, k=2, horizon=3, n_exact=0)

    def test_python_warns_at_the_first_batch_that_is_missed(self):
        rule = self.NARROW
        state = rule.init(6, 2)
        with pytest.warns(RangeWarning, match=f"{self.missed(1):.2%}"):
            state = rule.observe(state, SOURCE.batch(0, 50))
        state = rule.update(state, np.full(6, 16), None)
        rule.observe(state, SOURCE.batch(1, 50))  # a second warning would be an error here

    def test_sigmoid_scores_are_never_missed(self):
        """The published range: scores in [0, 1] need no bias that is more than 1 outside of the prices."""
        source = Normal(n_experts=6, offsets="iqr", seed=4, scale=9.0, transform="sigmoid")
        bs.simulate(QuantileBalance(estimate="histogram"), source, n_tokens=50, k=2, horizon=50, n_exact=0)

    def test_more_bins_come_closer_to_the_exact_quantile(self):
        scores = Normal(n_experts=6, offsets="iqr", seed=4, transform="sigmoid").batch(0, 3000)
        exact = one_update(QuantileBalance(), scores, 2)
        errors = [
            np.abs(one_update(QuantileBalance(estimate="histogram", n_bins=n), scores, 2) - exact).max()
            for n in (20, 200, 2000)
        ]
        assert errors[0] > errors[1] > errors[2]
        for n, error in zip((20, 200, 2000), errors, strict=True):
            assert error <= 2 * 2.0 / n  # one bin of the two prices' ranges each, before and after centring


def test_ranks_average_local_quantiles():
    """Ranks of one batch that differ: the average is neither pooled nor any rank's own."""
    scores = np.concatenate([SOURCE.batch(0, 30), SOURCE.batch(1, 30) * [3, 1, 1, 1, 1, 1]])
    pooled, averaged = (one_update(QuantileBalance(n_ranks=n), scores, 2) for n in (1, 2))
    own = [one_update(QuantileBalance(), part, 2) for part in (scores[:30], scores[30:])]
    np.testing.assert_allclose(averaged, (own[0] + own[1]) / 2, atol=1e-6)  # float32 cutoffs
    assert np.abs(averaged - pooled).max() > 1e-3


def test_masked_experts_and_tokens_with_few_experts():
    rows = np.random.default_rng(0).normal(size=(600, 5))
    rows[::3, 4] = -np.inf
    for rule in (QuantileBalance(), QuantileBalance(estimate="midpoint", n_sweeps=2)):
        run = bs.simulate(rule, Recorded(rows), n_tokens=50, k=2, horizon=12, n_exact=0)
        assert np.isfinite(run.bias).all()
        assert run.max_violation[-1] < run.max_violation[0] + 0.2


def test_it_balances_and_the_flipped_rule_does_not():
    rules = [NoBalance(), QuantileBalance(), QuantileBalance(estimate="histogram", margin=9.0)]
    rules += [Flipped(rules[1])]
    runs = bs.simulate(rules, SOURCE, n_tokens=500, k=2, horizon=60, n_exact=0)
    none, exact, binned, flipped = (run.window_loads[-5:].sum(axis=0) for run in runs)
    assert bs.max_violation(exact) < 0.1 < bs.max_violation(none) < bs.max_violation(flipped)
    assert bs.max_violation(binned) < 0.1


def test_damping_quietens():
    """Each batch's quantile is noise around one price; an average of ten has a third of its spread."""
    loud, quiet = bs.simulate(
        [QuantileBalance(), QuantileBalance(ema_rate=0.1)],
        SOURCE, n_tokens=200, k=2, horizon=400, n_records=400, n_exact=0,
    )  # fmt: skip
    assert quiet.bias[200:].std(axis=0).max() < 0.5 * loud.bias[200:].std(axis=0).min()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimate": "mid"}, "did you mean 'midpoint'"),
        ({"n_sweeps": 0}, "`n_sweeps` must be at least 1"),
        ({"ema_rate": 0.0}, "`ema_rate` must be above 0 and at most 1, got 0.0"),
        ({"ema_rate": 1.5}, "`ema_rate`"),
        ({"ema_rate": math.nan}, "`ema_rate`"),
        ({"ema_rate": True}, "`ema_rate`"),
        ({"n_ranks": 0}, "`n_ranks`"),
        ({"n_bins": 0}, "`n_bins`"),
        ({"n_bins": 10.5}, "`n_bins` must be an integer"),
        ({"margin": 0.0}, "`margin` must be a positive finite number"),
        ({"margin": math.inf}, "`margin`"),
        ({"estimate": "histogram", "n_sweeps": 2}, '`n_sweeps` must be 1 for `estimate` "histogram"'),
        ({"estimate": "histogram", "n_ranks": 2}, '`n_ranks` must be 1 for `estimate` "histogram"'),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        QuantileBalance(**arguments)


def test_more_ranks_than_tokens():
    with pytest.raises(InputError, match="at most the 8 tokens of an update, got 9"):
        bs.simulate(QuantileBalance(n_ranks=9), SOURCE, n_tokens=8, k=2, horizon=2)


def test_ranks_of_a_delay_average_loads_only():
    with pytest.raises(InputError, match="learns from scores"):
        Delayed(rule=QuantileBalance(), n_ranks=2)


def test_it_is_known_by_its_name():
    assert registry()["quantile"] is QuantileBalance
    assert QuantileBalance.causal
    assert QuantileBalance.needs_scores
