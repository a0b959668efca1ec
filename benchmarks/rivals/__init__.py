"""The rivals' sides of the benchmarks: what their documentation tells a user to write."""
