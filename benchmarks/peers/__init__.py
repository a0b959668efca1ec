"""Jobify for Django beside the fastest there is: one job, one machine, one run.

``python -m benchmarks.peers --store postgresql`` builds an environment for each contestant and lets them run
the same cells in turn. ``roster`` says who takes part, ``cell`` what happens in a cell, ``sides`` how each
contestant does it, ``jobs`` what its workers import.
"""
