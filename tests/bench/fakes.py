"""Peers that a worker process can load."""

import os

import numpy as np

from balancesim.bench.exact_peers import Answered, Peer, PeerError
from balancesim.bench.timing import Parts
from balancesim.types import Float64Array


def first_come(scores: Float64Array, k: int) -> Answered:
    """No optimum: each token takes its first experts."""
    return Answered(Parts(0.25, 0.5), float(scores[:, :k].sum()))


def brute(scores: Float64Array, k: int) -> Answered:
    """The optimum, from our own solver."""
    from balancesim.exact import solve

    return Answered(Parts(0.0, 1.0), solve(scores, k=k).value)


def refuses(scores: Float64Array, k: int) -> Answered:
    raise PeerError(f"no answer for {scores.shape[0]} tokens, K = {k}")


def breaks(scores: Float64Array, k: int) -> Answered:
    return Answered(Parts(0.0, 1.0), float(np.ones(k) @ scores))


def dies(scores: Float64Array, k: int) -> Answered:
    os._exit(scores.shape[0] + k)


WRONG = Peer("wrong", ("numpy",), "numpy", first_come)
RIGHT = Peer("right", ("numpy",), "numpy", brute)
REFUSES = Peer("refuses", ("numpy",), "numpy", refuses)
BREAKS = Peer("breaks", ("numpy",), "numpy", breaks)
DIES = Peer("dies", ("numpy",), "numpy", dies)
ABSENT = Peer("absent", ("numpy", "no_such_module"), "no-such-package", brute)
