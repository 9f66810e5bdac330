"""What a router learns on: clustered tokens, with a known reward for every token and expert."""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from balancesim.errors import InputError
from balancesim.numbers import check_int, check_not_negative, is_number
from balancesim.rng import check_seed, philox_key
from balancesim.sources.base import alias_table, check_step, rows_model
from balancesim.types import Float64Array, IntArray

if TYPE_CHECKING:
    from balancesim.kernels.tokens import TokenModel


class TokenBatch(NamedTuple):
    """The tokens of one step.

    Attributes
    ----------
    clusters : (T,) ndarray of int64
        Each token's cluster.
    features : (T, d) ndarray of float64
        What the router sees.
    expected : (T, E) ndarray of float64
        Expected rewards: those of the token's cluster.
    rewards : (T, E) ndarray of float64
        The rewards that the router is taught with: the expected ones and the token's own noise.
    """

    clusters: IntArray
    features: Float64Array
    expected: Float64Array
    rewards: Float64Array


@dataclass(frozen=True, kw_only=True)
class ClusteredTask:
    """Clustered tokens with known rewards.

    A token of cluster c has features (centre_c + noise z)/sqrt(d), z standard normal, centres too, so that
    features have a length of about sqrt(1 + noise^2). Expert e is worth r_ce in [0, 1] to it: r_ce is uniform
    over clusters and experts, the distribution function of sqrt(quality) a_e + sqrt(1 - quality) b_ce at
    that value, with a and b standard normal. Tasks are immutable; a token is a pure function of task, seed,
    step and its place in the batch.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    n_clusters : int, optional
        Number of clusters, C.
    n_features : int, optional
        Length of a token's features, d.
    noise : float, optional
        Standard deviation of a feature around its centre, in units of the centres' own.
    zipf : float, optional
        Cluster frequencies fall like rank^-zipf; 0 makes them equal.
    quality : float, optional
        Share, in [0, 1], of the rewards' variance that is the expert's own: above 0, some experts are better
        for all clusters, and a router that is not balanced crowds them.
    reward_noise : float, optional
        Standard deviation of the noise on each token's reward from each expert; the router learns from the
        noisy rewards and is measured by the expected ones.
    structure_seed : int, optional
        Seed of centres and rewards, apart from the seed of the draws: the task stays the same over seeds.
    seed : int, optional
        Key of all draws.
    """

    n_experts: int
    n_clusters: int = 64
    n_features: int = 32
    noise: float = 0.3
    zipf: float = 1.0
    quality: float = 0.3
    reward_noise: float = 0.0
    structure_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("n_experts", self.n_experts, 2)
        check_int("n_clusters", self.n_clusters, 1)
        check_int("n_features", self.n_features, 1)
        for name in ("noise", "zipf", "reward_noise"):
            check_not_negative(name, getattr(self, name))
        if not (is_number(self.quality) and 0.0 <= self.quality <= 1.0):
            raise InputError(f"`quality` must lie in [0, 1], got {self.quality!r}")
        check_int("structure_seed", self.structure_seed, 0)
        check_seed(self.seed)

    def with_seed(self, seed: int) -> Self:
        """Return the same task with another seed of the draws."""
        return dataclasses.replace(self, seed=seed)

    @cached_property
    def frequencies(self) -> Float64Array:
        """Probability of each cluster, (C,)."""
        share = np.arange(1.0, self.n_clusters + 1.0) ** -self.zipf
        found: Float64Array = share / share.sum()
        return found

    @cached_property
    def centres(self) -> Float64Array:
        """Mean features of each cluster, (C, d), as the router sees them."""
        from balancesim.kernels.model import STREAM_CENTRE

        return self._structure(STREAM_CENTRE, self.n_clusters, self.n_features) / math.sqrt(self.n_features)

    @cached_property
    def cluster_rewards(self) -> Float64Array:
        """Expected reward of each expert for each cluster, (C, E)."""
        from scipy.special import ndtr

        from balancesim.kernels.model import STREAM_VALUE

        values = self._structure(STREAM_VALUE, self.n_clusters + 1, self.n_experts)
        mixed = math.sqrt(self.quality) * values[0] + math.sqrt(1.0 - self.quality) * values[1:]
        rewards: Float64Array = ndtr(mixed)
        return rewards

    @cached_property
    def _model(self) -> "TokenModel":
        from balancesim.kernels.model import DRAWN_ROWS
        from balancesim.kernels.tokens import TokenModel

        alias = alias_table(self.frequencies)
        rows = rows_model(self.cluster_rewards, row_mode=DRAWN_ROWS, seed=self.seed, alias=alias)
        return TokenModel(
            rows, self.centres, float(self.noise) / math.sqrt(self.n_features), float(self.reward_noise)
        )

    def kernel_model(self) -> "TokenModel":
        """Return the record that kernels draw from."""
        return self._model

    def batch(self, step: int, n_tokens: int) -> TokenBatch:
        """Draw the tokens of one step.

        Parameters
        ----------
        step : int
            The step, counted from 0; step n of a training run, counted from 1, draws ``batch(n - 1, ...)``.
        n_tokens : int
            Tokens in the batch, T; token t of a step is the same whatever T is.

        Returns
        -------
        TokenBatch
            Clusters, features and rewards.
        """
        from balancesim.kernels.tokens import draw_token_batch, token_pointer

        n = check_int("n_tokens", n_tokens, 1)
        found = TokenBatch(
            np.empty(n, np.int64),
            np.empty((n, self.n_features)),
            np.empty((n, self.n_experts)),
            np.empty((n, self.n_experts)),
        )
        draw_token_batch(token_pointer(self._model), self._model, check_step(step), *found)
        return found

    def describe(self) -> str:
        """Return one line for tables and figures."""
        return f"{self.n_clusters} clusters, {self.n_features} features, {self.n_experts} experts"

    def _structure(self, stream: int, n_rows: int, n_columns: int) -> Float64Array:
        from balancesim.kernels.tokens import draw_normals

        key0, key1 = philox_key(self.structure_seed)
        values = np.empty((n_rows, n_columns))
        draw_normals(np.uint64(key0), np.uint64(key1), stream, values)
        return values
