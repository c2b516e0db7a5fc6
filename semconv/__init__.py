"""The contract as a registry of semantic conventions: ``python -m semconv --write`` makes it."""
