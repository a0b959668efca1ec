"""Benchmarks: what Jobify for Django promises about speed, measured beside its rivals."""
