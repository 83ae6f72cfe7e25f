"""How much better than the usual way: each module with a `run() -> list[Row]` is a benchmark of one subject."""
