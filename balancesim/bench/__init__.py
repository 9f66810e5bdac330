"""Speed and memory as ratios taken within one run: ``python -m balancesim.bench``."""
