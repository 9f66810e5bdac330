"""A peer in a process of its own, which holds its data and waits to be called.

OR-tools and highspy bring different builds of HiGHS under one library name: whichever is loaded second into
a process fails. Between its calls a worker waits on a pipe and takes no time from others.
"""

import multiprocessing
import signal
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from balancesim.bench.exact_peers import Peer, PeerError
from balancesim.bench.timing import Parts
from balancesim.types import Float64Array

_PATIENCE = 30.0
"""Seconds that a worker gets to end by itself."""


def absent(peer: Peer) -> str | None:
    """Say how to install a peer that is not; None where it is.

    Parameters
    ----------
    peer : Peer
        The peer.

    Returns
    -------
    str or None
    """
    if all(find_spec(module) is not None for module in peer.modules):
        return None
    return f"not installed: pip install {peer.package}"


class Worker:
    """A process that solves one instance again and again, with one peer.

    Parameters
    ----------
    peer : Peer
        The peer.
    scores : (T, E) ndarray of float64
        The instance.
    k : int
        Experts per token.
    """

    def __init__(self, peer: Peer, scores: Float64Array, k: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, peer, scores, k), daemon=True)
        self._process.start()
        other.close()
        self.value = float("nan")

    def __call__(self) -> Parts:
        """Solve once; raise `PeerError` with what went wrong."""
        try:
            self._pipe.send(True)
            answer = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            self._process.join(_PATIENCE)
            raise PeerError(f"its process ended, exit code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise PeerError(answer)
        parts, self.value = answer
        return Parts(*parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(0.0 if isinstance(error, KeyboardInterrupt) else _PATIENCE)
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, peer: Peer, scores: Float64Array, k: int) -> None:
    """Solve whenever asked to; end when the other side closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other side, which ends this one
    try:
        for module in peer.modules:
            import_module(module)
        while pipe.recv():
            pipe.send(peer.solver(scores, k))
    except EOFError:
        return
    except PeerError as error:
        pipe.send(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is one line of the table
        pipe.send(f"{type(error).__name__}: {error}")
