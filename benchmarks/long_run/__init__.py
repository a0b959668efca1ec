"""Hours at one steady rate, with a snapshot held meanwhile: rate, latency, table sizes, dead rows, WAL."""
