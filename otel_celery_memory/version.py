"""The version of this package: what the instrumentation scope and the wheel both say."""

__version__ = "0.1.0"
