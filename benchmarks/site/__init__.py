"""A site of three pages with its workers inside, for the servers that ``benchmarks.servers`` starts."""
