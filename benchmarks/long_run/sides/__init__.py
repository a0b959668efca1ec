"""The contestants: each a program in an environment of its own, ``prepare``, ``push`` or ``work``."""
