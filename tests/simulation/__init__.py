"""Deterministic simulation: the pools' real code, several processes of it, in one thread under virtual time.

``python -m tests.simulation --help`` hunts for seeds that break an invariant, and replays them.
"""
