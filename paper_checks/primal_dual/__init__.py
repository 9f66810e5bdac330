"""ALF-LB as a primal-dual method: our derivations of claims of arXiv:2512.03915, and what goes beyond."""
