"""``python -m balancesim.cli``."""

from balancesim.cli import main

main(prog_name="balancesim")
