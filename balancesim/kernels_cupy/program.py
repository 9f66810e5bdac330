"""Programs for the card: which text, with which macros, makes which kernels. Compiles nothing by itself."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from balancesim.kernels_cupy.constants import constants

MOST_RANKS = 16
"""Largest K of the kernels that keep the K largest values in registers."""

MOST_LANES = 32
MOST_SLOTS = 64
"""Experts of one lane; a token has at most 32 lanes of its own."""

MOST_EXPERTS = MOST_LANES * MOST_SLOTS

OPTIONS = (
    "--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true",
    "--diag-suppress=177",
)  # fmt: skip
"""No flag that fuses or loosens arithmetic: the bits are those of the Numba kernels."""

_FILES = {
    "route": ("arithmetic.cuh", "largest.cuh", "tile.cuh", "route.cu"),
    "any": ("arithmetic.cuh", "any.cu"),
    "draw": ("arithmetic.cuh", "largest.cuh", "tile.cuh", "scores.cuh", "draw.cu"),
    "loop": ("arithmetic.cuh", "largest.cuh", "tile.cuh", "scores.cuh", "loop.cu"),
}


class Program(NamedTuple):
    """One translation unit: its name among `_FILES` and its macros."""

    name: str
    macros: tuple[tuple[str, str], ...]

    def source(self) -> str:
        """Return the whole text."""
        return _text(self.name)

    def options(self) -> tuple[str, ...]:
        """Return NVRTC's options, the card's architecture apart."""
        return (*OPTIONS, *(f"-D{name}={value}" for name, value in self.macros))


class Layout(NamedTuple):
    """How a warp shares a tile: `ranks` largest values kept, lanes a token, experts a lane (``tile.cuh``)."""

    ranks: int
    lanes: int
    slots: int

    @property
    def tokens(self) -> int:
        """Tokens that a warp takes at a time."""
        return 32 // self.lanes

    def stride(self, itemsize: int) -> int:
        """Numbers from one lane's row to the next."""
        return self.slots + 16 // itemsize

    def macros(self) -> dict[str, int]:
        """What ``tile.cuh`` is told."""
        return {"RANKS": self.ranks, "LANES": self.lanes, "SLOTS": self.slots}


def source_text(name: str) -> str:
    """Return one file of this package's CUDA sources.

    Parameters
    ----------
    name : str
        Its name, such as ``arithmetic.cuh``.

    Returns
    -------
    str
        Its text.
    """
    return (files("balancesim.kernels_cupy") / "source" / name).read_text(encoding="utf-8")


@cache
def _text(name: str) -> str:
    return constants() + "".join(source_text(part) for part in _FILES[name])


def program(name: str, real: str, **macros: int) -> Program:
    """Return a program for scores of one float type.

    Parameters
    ----------
    name : str
        "route", "any", "draw" or "loop".
    real : {"float", "double"}
        The type of the scores.
    **macros : int
        What its files ask for.

    Returns
    -------
    Program
        Ready to be compiled.
    """
    given = {"REAL": real, **{key: str(value) for key, value in macros.items()}}
    return Program(name, tuple(sorted(given.items())))


def fits(n_experts: int, k: int) -> bool:
    """Whether the kernels that keep a token's K largest in registers take these sizes."""
    return k <= MOST_RANKS and n_experts <= MOST_EXPERTS


def layout(n_experts: int, k: int, lanes: int | None = None) -> Layout:
    """Return how a warp shares a tile.

    Parameters
    ----------
    n_experts, k : int
        Sizes that `fits`.
    lanes : int, optional
        Lanes a token, a power of two; as few as the experts allow if omitted.

    Returns
    -------
    Layout
        Ranks, lanes and slots.
    """
    ranks = next(size for size in (1, 2, 4, 8, 16) if size >= k)
    step = max(8, ranks)
    if lanes is None:
        lanes = next(size for size in (1, 2, 4, 8, 16, 32) if size * MOST_SLOTS >= n_experts)
    slots = -(-n_experts // (lanes * step)) * step
    return Layout(ranks, lanes, slots)


def spread_layout(n_experts: int, k: int, n_tokens: int, n_blocks: int) -> Layout:
    """Return a layout that spreads few tokens over many blocks: more lanes a token, fewer experts a lane.

    Parameters
    ----------
    n_experts, k, n_tokens : int
        Sizes that `fits`.
    n_blocks : int
        Blocks that run at a time.

    Returns
    -------
    Layout
        With as many lanes a token as still give every tile a block of its own.
    """
    narrow = layout(n_experts, k)
    found = narrow
    for lanes in (1, 2, 4, 8, 16, 32):
        wanted = layout(n_experts, k, lanes)
        wide_enough = wanted.slots * lanes < 2 * max(n_experts, narrow.slots)
        if lanes >= narrow.lanes and wide_enough and -(-n_tokens // wanted.tokens) <= n_blocks:
            found = wanted
    return found


def common_programs() -> Sequence[tuple[str, Program]]:
    """Return programs of every kind, named: what a machine without a card compiles to know that they compile.

    Returns
    -------
    sequence of (str, Program)
        Every number of ranks, both types, every family of noise, transform and way of finding rows.
    """
    found: list[tuple[str, Program]] = []
    routes = (("float", 64, 1, 1), ("float", 61, 2, 0), ("float", 64, 8, 1), ("float", 128, 16, 1),
              ("double", 64, 4, 1), ("double", 1000, 8, 0))  # fmt: skip
    for real, n_experts, k, vector in routes:
        macros = {**layout(n_experts, k).macros(), "WARPS": 4, "VECTOR": vector, "CHOICE": 1 - vector}
        found.append((f"route {real} E={n_experts} K={k}", program("route", real, **macros)))
    found += [(f"route any {real}", program("any", real, WARPS=4, SHARED=1)) for real in ("float", "double")]
    draws = [("float", family) for family in range(10)] + [("double", family) for family in (0, 2, 6, 9)]
    for real, family in draws:
        rows, factors = (family + 1) % 3, family % 2
        model = {"FAMILY": family, "TRANSFORM": family % 3, "ROWS": rows, "FACTORS": factors}
        macros = {**layout(64, 8).macros(), **model, "WARPS": 4}
        found.append((f"draw {real} family {family}", program("draw", real, **macros)))
    for real, k, family, rows in (("float", 8, 2, 0), ("double", 2, 0, 1)):
        model = {"FAMILY": family, "TRANSFORM": 0, "ROWS": rows, "FACTORS": rows}
        macros = {**layout(64, k, 4).macros(), **model, "WARPS": 18, "BLOCK_THREADS": 32 * 19}
        found.append((f"loop {real} K={k}", program("loop", real, **macros)))
    return found
