"""Compiled loops: they trust their arguments, and take arrays and numbers only."""
