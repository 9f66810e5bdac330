"""Peers in processes of their own."""

import pytest

from balancesim.bench.exact_peers import PeerError
from balancesim.bench.instances import Shape, normal
from balancesim.bench.timing import Parts
from balancesim.bench.worker import Worker, absent
from tests.bench import fakes

SHAPE = Shape(8, 4, 1)


def test_a_worker_answers_again_and_again() -> None:
    scores = normal(SHAPE)
    with Worker(fakes.WRONG, scores, SHAPE.k) as worker:
        assert worker() == worker() == Parts(0.25, 0.5)
        assert worker.value == scores[:, 0].sum()


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (fakes.REFUSES, "no answer for 8 tokens, K = 1"),
        (fakes.BREAKS, "ValueError: .*mismatch"),
        (fakes.DIES, "its process ended, exit code 9"),
        (fakes.ABSENT, "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_goes_wrong_in_a_worker_is_said(peer: fakes.Peer, message: str) -> None:
    with Worker(peer, normal(SHAPE), SHAPE.k) as worker, pytest.raises(PeerError, match=message):
        worker()


def test_a_missing_peer_is_named_with_the_command() -> None:
    assert absent(fakes.ABSENT) == "not installed: pip install no-such-package"
    assert absent(fakes.RIGHT) is None
