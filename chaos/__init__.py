"""The chaos campaign: real processes over one store, faults, and a count of what became of every job."""
