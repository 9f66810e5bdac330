"""A router that learns: gradient rules act as published, beside selection rules on the same router."""

from balancesim.router.model import Router
from balancesim.router.race import race, summary
from balancesim.router.runs import RewardReference, RouterRun
from balancesim.router.task import ClusteredTask, TokenBatch
from balancesim.router.training import train_router

__all__ = [
    "ClusteredTask",
    "RewardReference",
    "Router",
    "RouterRun",
    "TokenBatch",
    "race",
    "summary",
    "train_router",
]
