"""From a file of pairs to token ids: formats, reader, split, render, preparation."""
