"""Pure mathematics: losses, layouts, metrics, statistics. No I/O, no state, no transformers."""
