"""C++ made from the card's text, compiled once for each text and kept beside the tests' bytecode."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

_CACHE = Path(__file__).parent / "__pycache__"


def load(name: str, text: str, flags: list[str]) -> ctypes.CDLL:
    """Return the library, compiled unless the same text was before by the same command."""
    assert COMPILER is not None
    command = [COMPILER, "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", *flags]
    key = hashlib.blake2b("\n".join([platform.machine(), *command, text]).encode(), digest_size=8)
    target = _CACHE / f"{name}-{key.hexdigest()}.so"
    if not target.exists():
        _CACHE.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=_CACHE) as folder:
            source, made = Path(folder) / f"{name}.cpp", Path(folder) / target.name
            source.write_text(text, encoding="utf-8")
            done = subprocess.run(
                [*command, str(source), "-o", str(made)], check=False, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise RuntimeError(done.stderr[:4000])
            # In one step: another process may be making the same.
            made.replace(target)
    return ctypes.CDLL(str(target))
