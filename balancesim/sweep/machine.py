"""What a result depends on besides its configuration: versions of packages and the machine."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "balancesim", "numpy", "scipy", "numba", "llvmlite", "pandas", "pyarrow", "matplotlib", "cvxpy",
    "highspy", "click", "rich", "msgspec",
)  # fmt: skip


def manifest() -> dict[str, Any]:
    """Versions of Python and of every core package, and the machine."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": processor(),
        },
    }


def version(package: str) -> str:
    """The installed version of a package, ``"not installed"`` where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name."""
    if sys.platform == "linux":
        try:
            with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
                names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        except OSError:
            names = []
        if names:
            return names[0]
    return platform.processor() or "unknown"


def memory_bytes() -> int | None:
    """Installed memory, where the operating system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
