"""`fastweights list`."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastweights.cli.parser import Parser, name_in


def add_options(parser: Parser) -> None:
    """Which names."""
    parser.usage = f"fastweights list [{' | '.join(SECTIONS)}]"
    parser.add_argument(
        "what", nargs="?", type=name_in("section", SECTIONS), metavar="WHAT", help="default: all"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the names of one section or of all."""
    if arguments.what:
        print("\n".join(SECTIONS[arguments.what]()))
        return 0
    blocks = [
        "\n".join([name, *(f"  {line}" for line in lines())]) for name, lines in SECTIONS.items()
    ]
    print("\n\n".join(blocks))
    return 0


def _studies() -> list[str]:
    from fastweights.experiments import EXPERIMENTS

    lines = []
    for name, study in EXPERIMENTS.items():
        lines.append(f"{name}: {study.summary}")
        lines += [f"  tasks: {_shortened(study.tasks)}", f"  models: {' '.join(study.models)}"]
    return lines


def _models() -> list[str]:
    from fastweights.experiments import formal_languages, recall, retrieval

    menus = (formal_languages.MODELS, retrieval.MODELS, recall.MODELS)
    return _aligned(
        {
            name: " ".join(f"{key}={value}" for key, value in _flat(settings).items())
            for menu in menus
            for name, settings in menu.items()
        }
    )


def _languages() -> list[str]:
    from fastweights.tasks.formal.menu import LANGUAGES

    return _aligned(
        {
            name: f"{language.title}: symbols {' '.join(language.symbols)}, "
            f"labels {' '.join(language.labels)}, "
            f"lengths {_window(language.train_window)}, longer test {_window(language.test_window)}"
            for name, language in LANGUAGES.items()
        }
    )


def _layers() -> list[str]:
    from fastweights.models.menu import SEQUENCE_LAYERS, layer_options

    lines = []
    for name, layer in SEQUENCE_LAYERS.items():
        lines.append(f"{name}: {_first_sentence(layer)}")
        hints = get_type_hints(layer.__init__)
        for option, value in layer_options(name, {}).items():
            choices = get_args(hints[option]) if get_origin(hints[option]) is Literal else ()
            lines.append(f"  {option}={value}{_of(choices)}")
    return lines


def _blocks() -> list[str]:
    from fastweights.models.menu import BLOCKS

    return _aligned({name: _first_sentence(block) for name, block in BLOCKS.items()})


SECTIONS: dict[str, Callable[[], list[str]]] = {
    "studies": _studies,
    "models": _models,
    "languages": _languages,
    "layers": _layers,
    "blocks": _blocks,
}


def _aligned(lines: dict[str, str]) -> list[str]:
    width = max(map(len, lines))
    return [f"{name:<{width}}  {text}" for name, text in lines.items()]


def _shortened(names: Sequence[str]) -> str:
    """unique_20 unique_40 ... unique_600 repeated_20 ...: of more than three that differ in their
    number, the first two and the last."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rstrip("0123456789"), []).append(name)
    shown = [
        [*group[:2], "...", group[-1]] if len(group) > 3 else group for group in groups.values()
    ]
    return " ".join(name for group in shown for name in group)


def _window(window: tuple[int, int]) -> str:
    return f"{window[0]}-{window[1]}"


def _of(choices: Sequence[Any]) -> str:
    return f"  (of {', '.join(map(str, choices))})" if choices else ""


def _first_sentence(thing: Any) -> str:
    paragraph = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return re.split(r"\.\s(?=[A-Z`])", " ".join(paragraph.split()))[0].removesuffix(".")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    nested = settings.get("layer_options", {})
    return {key: value for key, value in settings.items() if key != "layer_options"} | nested
