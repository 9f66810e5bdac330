"""Structured, recorded and user-made sources, and what each refuses."""

import numpy as np
import pytest
from scipy import stats

from balancesim import sources
from balancesim.errors import InputError
from balancesim.sources.base import alias_table
from balancesim.sources.token_stream import BUNDLED, read_counts


def test_factor_correlations():
    source = sources.Factor(n_experts=6, n_factors=2, strength=0.7, seed=3, structure_seed=9)
    scores = source.batch(0, 40_000).astype(np.float64)
    weights = source.kernel_model().loadings
    expected = weights @ weights.T + np.diag(np.full(6, 0.3))
    np.testing.assert_allclose(np.diag(expected), 1.0)
    # Standard errors of a covariance of unit-variance normals are at most sqrt(2/n); five of them.
    np.testing.assert_allclose(np.cov(scores.T), expected, atol=5 * np.sqrt(2 / len(scores)))
    assert (source.with_seed(4).kernel_model().loadings == weights).all()


def test_cluster_frequencies_and_centres():
    source = sources.Clustered(n_experts=4, n_clusters=3, strength=1.0, zipf=1.0, seed=3)
    scores = source.batch(0, 30_000).astype(np.float64)
    centres = source.kernel_model().table.astype(np.float64)
    cluster = np.abs(scores[:, None, :] - centres).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(scores, centres[cluster], atol=1e-6)
    share = np.bincount(cluster, minlength=3) / len(cluster)
    np.testing.assert_allclose(share, np.array([6, 3, 2]) / 11, atol=5 * 0.5 / np.sqrt(len(cluster)))


def test_alias_table_is_exact():
    frequency = np.array([5.0, 0.0, 1.0, 2.0, 8.0])
    threshold, alias = alias_table(frequency)
    mass = np.zeros(5)
    for row in range(5):
        mass[row] += threshold[row] / 5
        mass[alias[row]] += (1 - threshold[row]) / 5
    np.testing.assert_allclose(mass, frequency / frequency.sum(), atol=1e-15)


def test_token_stream_reproduces_its_counts():
    frequency, counts = read_counts("olmoe-wikipedia", 7, 64)
    assert counts.sum() == 1_671_168
    source = sources.TokenStream(scale=1e-6, seed=1)
    scores = source.batch(0, 4000).astype(np.float64)
    table = np.log((counts + 1.0) / (frequency + 64.0)[:, None])
    # With next to no noise, each token's scores are a row of the table: find it by its sum.
    sums = np.sort(table.sum(axis=1))
    nearest = np.abs(sums[np.clip(np.searchsorted(sums, scores.sum(axis=1)), 1, len(sums) - 1)])
    assert np.isfinite(nearest).all()
    expected = frequency / frequency.sum() @ table
    error = np.sqrt(frequency / frequency.sum() @ (table - expected) ** 2 / len(scores))
    assert (np.abs(scores.mean(axis=0) - expected) < 5 * error).all()


def test_token_stream_switches_its_domain():
    shifted = sources.TokenStream(switch_to="olmoe-arxiv", switch_at=3, seed=2)
    wikipedia, arxiv = sources.TokenStream(seed=2), sources.TokenStream(counts="olmoe-arxiv", seed=2)
    assert (shifted.batch(2, 50) == wikipedia.batch(2, 50)).all()
    np.testing.assert_allclose(shifted.batch(3, 50), arxiv.batch(3, 50))
    assert "olmoe-arxiv" in shifted.describe()


def test_token_stream_reads_files_of_its_form(tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, layer2_token=[5, 5, 9], layer2_expert=[0, 2, 1], layer2_count=[3, 1, 4])
    stream = sources.TokenStream(counts=str(path), layer=2, n_experts=3, scale=1e-9)
    expected = np.log(np.array([[4, 1, 2], [1, 5, 1]]) / 7)
    drawn = stream.batch(0, 400)
    of_first = np.isclose(drawn, expected[0], atol=1e-6).all(axis=1)
    of_second = np.isclose(drawn, expected[1], atol=1e-6).all(axis=1)
    assert (of_first ^ of_second).all()
    assert abs(of_first.mean() - 0.5) < 5 * 0.5 / 20


@pytest.mark.parametrize("order", ["replay", "resample"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_recorded(tmp_path, order, dtype):
    rows = np.random.default_rng(0).standard_normal((50, 6)).astype(dtype)
    np.save(tmp_path / "scores.npy", rows)
    np.savez(tmp_path / "scores.npz", a=rows, b=rows[:3])
    from_array = sources.Recorded(rows, order=order, seed=1)
    expected = from_array.batch(2, 10)
    assert expected.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for same in (
        sources.Recorded(tmp_path / "scores.npy", order=order, seed=1),
        sources.Recorded(str(tmp_path / "scores.npz"), array="a", order=order, seed=1),
    ):
        assert (same.batch(2, 10) == expected).all()
        assert same.n_experts == 6
    if order == "replay":
        assert (expected == rows[20:30]).all()
        assert from_array.n_steps(20) == 2
        with pytest.raises(InputError, match="ends at row 60, past the 50 recorded"):
            from_array.batch(5, 10)
    else:
        assert from_array.n_steps(20) is None
        assert {tuple(row) for row in expected} <= {tuple(row) for row in rows.astype(expected.dtype)}
        drawn = from_array.batch(0, 5000)
        counts = np.array([(drawn == row).all(axis=1).sum() for row in rows.astype(drawn.dtype)])
        assert stats.chisquare(counts).pvalue > 1e-4


def test_from_scipy_is_faithful_in_both_tails():
    source = sources.FromScipy(stats.genpareto(0.5), n_experts=3, seed=1, offsets=(0.0, 1.0, 2.0), scale=2.0)
    scores = source.batch(0, 20_000)
    assert (source.batch(0, 10) == scores[:10]).all()
    noise = (scores.astype(np.float64) - [0.0, 1.0, 2.0]) / 2.0
    assert stats.kstest(noise.ravel(), stats.genpareto(0.5).cdf).pvalue > 1e-4
    assert source.population_bias().tolist() == [1.0, 0.0, -1.0]


def test_from_function():
    source = sources.FromFunction(lambda u: np.log(u[:, :1]) + u, n_experts=3, seed=1, transform="softmax")
    scores = source.batch(0, 100)
    np.testing.assert_allclose(scores.sum(axis=1), 1.0)
    assert scores.dtype == np.float64
    assert (source.batch(0, 7) == scores[:7]).all()


N = {"n_experts": 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sources.Normal(n_experts=1), "`n_experts` must be at least 2, got 1"),
        (lambda: sources.Normal(n_experts=2.5), "`n_experts` must be an integer, got 2.5"),
        (lambda: sources.Normal(**N, seed=-1), "`seed` must not be negative"),
        (lambda: sources.Normal(**N, seed="x"), "`seed` must be an integer"),
        (lambda: sources.Normal(**N, scale=0.0), "`scale` must be a positive finite number, got 0.0"),
        (lambda: sources.Normal(**N, scale=-1), "`scale` must be a positive"),
        (lambda: sources.Normal(**N, scale=float("nan")), "`scale`"),
        (lambda: sources.Normal(**N, offsets=(1, 2)), r"`offsets` must have one entry per expert, \(4,\)"),
        (lambda: sources.Normal(**N, offsets=(1, 2, 3, float("inf"))), "`offsets` must be finite, got inf"),
        (lambda: sources.Normal(**N, offsets="wide"), "`offsets` must be one of 'iqr'"),
        (lambda: sources.Normal(**N, transform="relu"), "`transform` must be one of"),
        (lambda: sources.Pareto(**N, tail_index=0), "`tail_index` must be a positive finite number, got 0"),
        (lambda: sources.StudentT(**N, degrees=-2.0), "`degrees`"),
        (lambda: sources.LogNormal(**N, sigma=float("inf")), "`sigma`"),
        (lambda: sources.Factor(**N, n_factors=0), "`n_factors`"),
        (lambda: sources.Factor(**N, strength=1.5), r"`strength` must lie in \[0, 1\]"),
        (lambda: sources.Factor(**N, noise="pareto"), "`noise` must be one of"),
        (lambda: sources.Clustered(**N, n_clusters=0), "`n_clusters`"),
        (lambda: sources.Clustered(**N, zipf=-1.0), "`zipf`"),
        (lambda: sources.Drifting(**N, walk_rate=-0.1), "`walk_rate`"),
        (lambda: sources.Drifting(**N, switch_at=5), "needs some: set `offsets`"),
        (lambda: sources.Drifting(**N, offsets="iqr", switch_at=(5, 5)), "ascending steps"),
        (lambda: sources.TokenStream(counts="olmoe-wikipdia"), "did you mean 'olmoe-wikipedia'"),
        (lambda: sources.TokenStream(layer=3), r"`layer` must be one of .*\(0, 15, 7\), got 3"),
        (lambda: sources.TokenStream(n_experts=32), "experts below n_experts = 32"),
        (lambda: sources.TokenStream(pseudo_count=0.0), "`pseudo_count`"),
        (lambda: sources.TokenStream(switch_to="olmoe-arxiv"), "go together"),
        (lambda: sources.TokenStream(switch_to="olmoe-arxiv", switch_at=0), "`switch_at` must be at least 1"),
        (lambda: sources.Recorded("no/such/file.npy"), "does not exist"),
        (lambda: sources.Recorded(np.zeros(4)), r"must be \(rows, E\)"),
        (lambda: sources.Recorded(np.zeros((4, 4), int)), "float16, float32 or float64, got int64"),
        (lambda: sources.Recorded(np.full((4, 4), np.nan)), "nan at token 0, expert 0"),
        (lambda: sources.Recorded(np.full((4, 4), -np.inf)), "at least k = 1 experts unmasked"),
        (lambda: sources.Recorded(np.zeros((4, 4)), order="shuffled"), "`order` must be one of"),
        (lambda: sources.FromScipy("norm", **N), "frozen scipy.stats distribution"),
        (lambda: sources.FromFunction(lambda u: u[:, :2], **N), "array of its argument's shape"),
        (lambda: sources.FromFunction(lambda u: u - u.mean(axis=0), **N), "each token on its own"),
        (lambda: sources.FromFunction(lambda u: u * np.nan, **N), "got NaN or inf"),
        (lambda: sources.Normal(**N).batch(-1, 4), "`step` must be at least 0"),
        (lambda: sources.Normal(**N).batch(1 << 32, 4), r"below 2\*\*32"),
        (lambda: sources.Normal(**N).batch(0, 0), "`n_tokens` must be at least 1"),
        (lambda: sources.Factor(**N).noise_distribution(), "no i.i.d. score distribution"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_files_that_are_not_arrays(tmp_path):
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Pickled objects are never loaded"):
        sources.Recorded(pickled)
    text = tmp_path / "text.npy"
    text.write_text("no array here")
    with pytest.raises(InputError, match="cannot be read"):
        sources.Recorded(text)
    with pytest.raises(InputError, match="the file has no layer7_token"):
        sources.TokenStream(counts=str(text))
    members = tmp_path / "several.npz"
    np.savez(members, a=np.zeros((2, 3)), b=np.ones((2, 3)))
    with pytest.raises(InputError, match=r"`array` must name one of the arrays in .*\(a, b\)"):
        sources.Recorded(members)
    objects = tmp_path / "objects.npz"
    np.savez(objects, a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="Pickled objects are never loaded"):
        sources.Recorded(objects)
    truncated = tmp_path / "short.npz"
    truncated.write_bytes(BUNDLED["olmoe-arxiv"].read_bytes()[:1000])
    for read in (sources.Recorded, lambda path: sources.TokenStream(counts=str(path))):
        with pytest.raises(InputError, match="cannot be read as plain NumPy arrays"):
            read(truncated)


def test_registry_names_every_source():
    registry = sources.registry()
    assert {"uniform", "pareto", "token-stream", "recorded", "drifting"} <= set(registry)
    assert all(issubclass(kind, sources.Source) and kind.name == name for name, kind in registry.items())


def test_masks_survive_the_transforms_of_ones_own_functions():
    def masked(u):
        return np.where(np.arange(4) == 2, -np.inf, 1e4 * u)

    for transform in ("raw", "sigmoid", "softmax"):
        scores = sources.FromFunction(masked, n_experts=4, transform=transform).batch(0, 20)
        assert (scores[:, 2] == -np.inf).all()
        assert np.isfinite(np.delete(scores, 2, axis=1)).all()


def test_tails_too_heavy_for_float64_are_refused():
    with pytest.raises(InputError, match="too heavy-tailed for float64"):
        sources.Pareto(n_experts=4, tail_index=0.005)
