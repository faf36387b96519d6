"""The version, apart from the package's doors, so that any layer may know it."""

__version__ = "0.1.0"
