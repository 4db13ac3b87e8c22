"""The ways a run can end badly. Each message is one line."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Base of the errors below."""


class RunFolderError(TrainingError):
    """The run folder cannot be used as asked."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, is damaged, or belongs to another configuration."""


class NonFiniteLossError(TrainingError):
    """The loss or the weights became NaN or infinite."""


class OtherProcessError(TrainingError):
    """Another process of the same run has failed, and says why."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the message says how to go on."""
