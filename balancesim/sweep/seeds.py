"""Seeds as the user writes them: ``0:20``, ``7`` or ``0:4,10:12``."""

import re

from balancesim.errors import ConfigurationError

_MOST = 1_000_000
_RULE = "is FIRST:END (END excluded), a single seed, or several of these with commas, as in 0:16 or 0:4,10"


def parse_seeds(text: object, origin: str) -> tuple[int, ...]:
    """The seeds that a text, a number or a list of either stands for, ascending and without repeats.

    Raises
    ------
    ConfigurationError
        If it cannot be read, holds no seed or a negative one; ``origin`` names the place in the message.
    """
    pieces = text if isinstance(text, list | tuple) else [text]
    seeds: set[int] = set()
    for piece in pieces:
        if isinstance(piece, bool) or not isinstance(piece, int | str):
            raise ConfigurationError(f"{origin} {_RULE}; got {piece!r}")
        for part in str(piece).split(","):
            match = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", part)
            if match is None:
                raise ConfigurationError(f"{origin} {_RULE}; got {part.strip()!r}")
            first = int(match[1])
            end = first + 1 if match[2] is None else int(match[2])
            if end > 2**63:
                raise ConfigurationError(f"{origin} must hold seeds below 2**63, got {part.strip()}")
            if end - first + len(seeds) > _MOST:
                raise ConfigurationError(f"{origin} must hold at most {_MOST:,} seeds, got {part.strip()}")
            seeds.update(range(first, end))
    if not seeds:
        raise ConfigurationError(f"{origin} holds no seed; it {_RULE}")
    return tuple(sorted(seeds))


def seeds_text(seeds: tuple[int, ...]) -> str:
    """Write ascending seeds in the form that :func:`parse_seeds` reads."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and spans[-1][1] == seed:
            spans[-1][1] = seed + 1
        else:
            spans.append([seed, seed + 1])
    return ",".join(str(first) if end == first + 1 else f"{first}:{end}" for first, end in spans)
