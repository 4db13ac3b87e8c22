"""The options of `train`: every field of `RunConfig`, through pydantic-settings."""

from __future__ import annotations

import argparse
import re
from typing import Any, cast

from pydantic_settings import BaseSettings, CliSettingsSource

from fastweights.cli.values import parse_value
from fastweights.train.config import ConfigError, RunConfig

SHORT_TASK_NAMES = {"task.pattern": "regex", "task.path": "dfa", "task.folder": "files"}
TASK_KINDS = {
    "language": "formal_language",
    "pattern": "regex",
    "path": "dfa",
    "folder": "files",
    "num_keys": "retrieval",
    "vocab_size": "recall",
    "tokens_per_key": "recall",
    "writes_per_key": "recall",
    "random_filler": "recall",
    "lengths": "recall",
    "test_lengths": "recall",
    "text": "text",
    "context_length": "text",
    "carry_state": "text",
    "held_out_tokens": "text",
}
"""The fields of a task that say by themselves which kind of task it is."""

KINDS = tuple(dict.fromkeys(TASK_KINDS.values()))

OPTION_GROUPS = ("layer_options", "feed_forward_options")
"""Fields of a sequence model that hold options of a layer."""

METAVARS = {
    **{f"model.{group}": "NAME=VALUE" for group in OPTION_GROUPS},
    "horizon_lengths": "N",
    "model.adaptive_cutoffs": "N",
    "task.lengths": "N",
    "task.test_lengths": "N",
    "task.train_window": "N",
    "task.test_window": "N",
}


class RunOptions:
    """Adds the options to a parser, short (`--lr`) and dotted (`--model.dim`); reads them back."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.names: dict[str, str] = {}
        self._dests: list[str] = []
        # The source looks at the fields only: nothing of BaseSettings, the environment above all,
        # takes part.
        self._source = CliSettingsSource[Any](
            cast(type[BaseSettings], RunConfig),
            root_parser=parser,
            cli_parse_args=False,
            cli_kebab_case=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_parse_none_str="null",
            add_argument_method=self._add,
        )

    def overrides(self, parsed: argparse.Namespace) -> dict[str, Any]:
        """What was given on the command line, nested as a configuration file is.

        Raises ConfigError when two kinds of task are asked for, and for a pair without `=`.
        """
        given = {dest: vars(parsed)[dest] for dest in self._dests if dest in vars(parsed)}
        for group in OPTION_GROUPS:
            for pair in given.get(f"model.{group}") or ():
                if "=" not in pair:
                    flag = _flag(group)
                    raise ConfigError([f"{flag}: must be NAME=VALUE, got {pair!r}"])
        values: dict[str, Any] = self._source(parsed_args=given)()
        model = values.get("model", {})
        for group in OPTION_GROUPS:
            if isinstance(model.get(group), dict):
                model[group] = {
                    name: parse_value(value) if isinstance(value, str) else value
                    for name, value in model[group].items()
                }
        task = values.get("task")
        if isinstance(task, dict) and "kind" not in task:
            asked = {TASK_KINDS[name]: name for name in TASK_KINDS if name in task}
            if len(asked) > 1:
                flags = [_flag(f"task.{name}") for name in asked.values()]
                raise ConfigError([f"{' and '.join(flags)} ask for different tasks: give one"])
            if asked:
                task["kind"] = next(iter(asked))
        return values

    def _add(self, place: Any, *flags: str, **settings: Any) -> None:
        """One option as pydantic-settings would add it, with the short name, one default and no
        choices: `RunConfig` checks the values and knows the near names."""
        dest = settings["dest"]
        if settings.get("help") == argparse.SUPPRESS:
            return  # `--model`, a whole group as JSON
        short = _flag(dest)
        if "." in dest and not dest.endswith(".kind"):
            flags = (short, *flags)
        self.names[short[2:].replace("-", "_")] = dest
        self._dests.append(dest)
        settings["help"] = _one_default(dest, settings.get("help") or "")
        settings["metavar"] = _metavar(dest, settings)
        settings.pop("choices", None)
        if settings.get("action") == "append":
            settings.update(action="extend", nargs="*")
        place.add_argument(*flags, **settings)


def _flag(dest: str) -> str:
    """`task.num_keys` -> `--num-keys`."""
    return "--" + SHORT_TASK_NAMES.get(dest, dest.rpartition(".")[2]).replace("_", "-")


def option_names() -> dict[str, str]:
    """Short names of the options and the fields they stand for: `{"lr": "training.lr", ...}`."""
    return RunOptions(argparse.ArgumentParser(add_help=False)).names


def _one_default(dest: str, text: str) -> str:
    """pydantic-settings adds a default where the description has it; a union's is one variant's."""
    text = re.sub(r"\s*\((default: (None|\{\})|ifdef: required)\)$", "", text)
    if text.count("(default: ") > 1:
        text = text[: text.rindex("(default: ")].rstrip()
    if dest == "task.kind":
        return f"{', '.join(KINDS)} (default: what the other options say)"
    if dest == "model.kind":
        return "sequence or associative_memory (default: what the task needs)"
    return text.replace("%", "%%")


def _metavar(dest: str, settings: dict[str, Any]) -> str:
    if dest in METAVARS:
        return METAVARS[dest]
    shown = str(settings.get("metavar") or "VALUE")
    return shown if shown.startswith("{") else shown.upper()
