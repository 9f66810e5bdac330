"""``python -m balancesim.kernels_cupy``: compile every kind of kernel for cards that are not here."""

import sys
import time

from balancesim.errors import MissingDependencyError
from balancesim.kernels_cupy.nvrtc import CompilationError, compile_program, version
from balancesim.kernels_cupy.program import common_programs

ARCHITECTURES = ("sm_80", "sm_90")


def main() -> int:
    """Compile all programs; return the exit code: 0, 1 where one fails, 3 where there is no NVRTC."""
    try:
        print(f"NVRTC {version()}, {', '.join(ARCHITECTURES)}")
    except MissingDependencyError as error:
        print(error, file=sys.stderr)
        return 3
    n_failed = 0
    programs = common_programs()
    start = time.perf_counter()
    for architecture in ARCHITECTURES:
        for name, given in programs:
            try:
                compile_program(given, architecture)
            except CompilationError as error:
                n_failed += 1
                print(f"FAIL  {architecture}  {name}\n{error}", file=sys.stderr)
    n_all = len(programs) * len(ARCHITECTURES)
    print(f"{n_all - n_failed} of {n_all} programs compile, {time.perf_counter() - start:.0f} s")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
