"""Sequence models that program their own weights, on CPU and GPU.

Importing this package imports nothing else: the parts are `fastweights.ops`, `fastweights.layers`,
`fastweights.models`, `fastweights.tasks` and `fastweights.train`.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__`, read from the installed package's metadata when first asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("fastweights")
    except PackageNotFoundError:  # the source tree on sys.path, never installed
        found = "0+not-installed"
    globals()["__version__"] = found
    return found
