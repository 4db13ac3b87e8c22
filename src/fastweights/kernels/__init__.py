"""Speed only: without this package every result is the same, slower."""

from fastweights.kernels.backend import Backend, resolve_backend

__all__ = ["Backend", "resolve_backend"]
