"""The menu of problems: the kind of a task says which one a run learns."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastweights.train.config import RunConfig
from fastweights.train.formal import FormalLanguageProblem
from fastweights.train.problem import Problem
from fastweights.train.recall import RecallProblem
from fastweights.train.retrieval import RetrievalProblem
from fastweights.train.text import TextProblem

PROBLEMS: dict[str, Callable[[RunConfig, torch.device], Problem]] = {
    "formal_language": FormalLanguageProblem,
    "regex": FormalLanguageProblem,
    "dfa": FormalLanguageProblem,
    "files": FormalLanguageProblem,
    "retrieval": RetrievalProblem,
    "recall": RecallProblem,
    "text": TextProblem,
}


def load_problem(config: RunConfig, device: torch.device) -> Problem:
    """What the configuration asks for, its data ready on the device. Raises ConfigError and
    ValueError, one line, for names and data that do not fit."""
    return PROBLEMS[config.task.kind](config, device)
