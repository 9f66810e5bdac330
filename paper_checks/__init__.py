"""The papers' statements as checks: one module per paper, one function per statement."""
