"""Group-limited choice: experts in groups, the best groups of each token first (DeepSeek-V2 and V3)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from balancesim.errors import InputError, unknown_name
from balancesim.numbers import check_int
from balancesim.types import FloatArray

if TYPE_CHECKING:
    from balancesim.kernels.choices import Groups

_SUMMED = {"top2": 2, "max": 1}


@dataclass(frozen=True)
class GroupLimit:
    """A limit on the groups of experts that one token may use.

    Experts lie in equal groups, one after the other. A group scores the sum of its two best biased scores
    ("top2", DeepSeek-V3, arXiv:2412.19437) or its best ("max", DeepSeek-V2, arXiv:2405.04434); each token
    chooses its K experts among those of its ``n_chosen`` best groups, ties going to the lower group.

    Parameters
    ----------
    n_groups : int
        Groups; a divisor of the number of experts.
    n_chosen : int
        Groups that a token may use.
    score : {"top2", "max"}, optional
        What a group scores.
    """

    n_groups: int
    n_chosen: int
    score: Literal["top2", "max"] = "top2"

    def __post_init__(self) -> None:
        check_int("n_groups", self.n_groups, 1)
        check_int("n_chosen", self.n_chosen, 1)
        if self.n_chosen > self.n_groups:
            raise InputError(f"`n_chosen` must be at most n_groups = {self.n_groups}, got {self.n_chosen}")
        if self.score not in _SUMMED:
            raise InputError(f"`score`: {unknown_name('group score', self.score, _SUMMED)}")

    def check(self, n_experts: int, k: int) -> None:
        """Raise `InputError` unless the experts fall into equal groups with room for K choices."""
        if n_experts % self.n_groups:
            raise InputError(f"`n_groups` must divide the {n_experts} experts, got {self.n_groups}")
        size = n_experts // self.n_groups
        if size < _SUMMED[self.score]:
            raise InputError(
                f'`n_groups` = {self.n_groups} leaves one expert a group; "top2" needs two, use score="max"'
            )
        if self.n_chosen * size < k:
            raise InputError(
                f"`n_chosen` = {self.n_chosen} groups hold {self.n_chosen * size} experts, below k = {k}"
            )

    def apply(self, scores: FloatArray, bias: FloatArray) -> FloatArray:
        """Return the scores with all experts outside each token's best groups at minus infinity.

        Parameters
        ----------
        scores : (T, E) ndarray of float32 or float64
            Scores.
        bias : (E,) ndarray of the same dtype
            Added to the scores for the groups' own.
        """
        n_tokens, n_experts = scores.shape
        grouped = np.sort((scores + bias).reshape(n_tokens, self.n_groups, -1), axis=2)
        own = grouped[:, :, -_SUMMED[self.score] :].sum(axis=2)
        best = np.argsort(-own, axis=1, kind="stable")[:, : self.n_chosen]
        kept = np.zeros((n_tokens, self.n_groups), np.bool_)
        np.put_along_axis(kept, best, True, axis=1)
        mask = np.repeat(kept, n_experts // self.n_groups, axis=1)
        limited: FloatArray = np.where(mask, scores, scores.dtype.type(-np.inf))
        return limited

    def in_kernel(self) -> "Groups":
        """Return the limit as kernels take it."""
        from balancesim.kernels.choices import Groups

        return Groups(self.n_groups, self.n_chosen, _SUMMED[self.score])
