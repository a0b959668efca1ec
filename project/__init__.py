"""The demo: a small shop that is busier than its workers, and a page that shows what its queue does."""
