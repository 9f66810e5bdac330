"""``python -m balancesim.kernels_cupy``: compile every kind of kernel for cards that are not here."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from balancesim.errors import MissingDependencyError
from balancesim.kernels_cupy.nvrtc import CompilationError, compile_program, version
from balancesim.kernels_cupy.program import Program, common_programs

ARCHITECTURES = ("sm_80", "sm_90")


def main() -> int:
    """Compile all programs; return the exit code: 0, 1 where one fails, 3 where there is no NVRTC."""
    try:
        print(f"NVRTC {version()}, {', '.join(ARCHITECTURES)}")
    except MissingDependencyError as error:
        print(error, file=sys.stderr)
        return 3
    start = time.perf_counter()
    jobs = [(arch, name, given) for arch in ARCHITECTURES for name, given in common_programs()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [text for text in pool.map(_failure, jobs) if text]
    for text in failures:
        print(text, file=sys.stderr)
    n_good = len(jobs) - len(failures)
    print(f"{n_good} of {len(jobs)} programs compile, {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


def _failure(job: tuple[str, str, Program]) -> str:
    """What NVRTC says against a program; empty where it compiles."""
    architecture, name, given = job
    try:
        compile_program(given, architecture)
    except CompilationError as error:
        return f"FAIL  {architecture}  {name}\n{error}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
