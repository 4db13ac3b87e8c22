"""`fastweights list`."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

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
    from fastweights.experiments import (
        formal_languages,
        language_models,
        recall,
        retrieval,
        sparse_feed_forward,
    )

    menus = (
        formal_languages.MODELS,
        retrieval.MODELS,
        recall.MODELS,
        sparse_feed_forward.MODELS,
        language_models.MODELS,
    )
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
    from fastweights.models.menu import SEQUENCE_LAYERS, layer_parameters

    lines = []
    for name, layer in SEQUENCE_LAYERS.items():
        lines += [f"{name}: {_first_sentence(layer)}", *_options(layer_parameters(name))]
    return lines


def _feed_forwards() -> list[str]:
    from fastweights.models.menu import FEED_FORWARDS, feed_forward_parameters, fixed_options

    lines = []
    for name, make in FEED_FORWARDS.items():
        fixed = " ".join(f"{option}={value}" for option, value in fixed_options(make).items())
        what = _first_sentence(getattr(make, "func", make))
        lines += [
            f"{name}: {what}{f', with {fixed}' if fixed else ''}",
            *_options(feed_forward_parameters(name)),
        ]
    return lines


def _blocks() -> list[str]:
    from fastweights.models.menu import BLOCKS

    return _aligned({name: _first_sentence(block) for name, block in BLOCKS.items()})


SECTIONS: dict[str, Callable[[], list[str]]] = {
    "studies": _studies,
    "models": _models,
    "languages": _languages,
    "layers": _layers,
    "feed_forwards": _feed_forwards,
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


def _options(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """`  name=default  (of the values it may have)`; without a default, `  name`."""
    lines = []
    for name, parameter in parameters.items():
        kind = parameter.annotation
        default = "" if parameter.default is parameter.empty else f"={parameter.default}"
        of = f"  (of {', '.join(map(str, get_args(kind)))})" if get_origin(kind) is Literal else ""
        lines.append(f"  {name}{default}{of}")
    return lines


def _first_sentence(thing: Any) -> str:
    paragraph = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return re.split(r"\.\s(?=[A-Z`])", " ".join(paragraph.split()))[0].removesuffix(".")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat
