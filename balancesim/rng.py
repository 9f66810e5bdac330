"""Seeds to keys: the only place where a user's seed becomes bits."""

import hashlib
import operator

from balancesim.errors import InputError


def check_seed(seed: int) -> int:
    """Return ``seed`` as an int; raise `InputError` unless it is an integer of at least 0."""
    try:
        value = operator.index(seed)
    except TypeError:
        raise InputError(f"`seed` must be an integer, got {seed!r}") from None
    if value < 0:
        raise InputError(f"`seed` must not be negative, got {value}")
    return value


def philox_key(seed: int) -> tuple[int, int]:
    """The two 32-bit words of the key that all draws of a seed share.

    Seeds are hashed, so that neighbouring seeds have unrelated keys.
    """
    digest = hashlib.blake2b(str(check_seed(seed)).encode(), digest_size=8, person=b"balancesim").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
