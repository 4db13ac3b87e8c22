"""Libraries that only some texts need: imported when one is used."""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str) -> Any:
    """The module of that name. Raises ValueError, in one line, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"this needs the library {name}: pip install 'fastweights[text]'"
        ) from None
