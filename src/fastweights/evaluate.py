"""A trained run, loaded from its folder: its accuracy on any strings, its labels for one string,
what its memory retrieves."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from fastweights.layers.softmax_attention import SoftmaxAttention
from fastweights.layers.transformer_xl import TransformerXL
from fastweights.memory_map import MemoryMap, map_of_model, maps_of_pairs
from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.tasks.formal.encode import Vocabulary
from fastweights.tasks.formal.language import Example, FormalLanguage
from fastweights.tasks.formal.menu import LANGUAGES, Task, load_language
from fastweights.tasks.formal.splits import make_splits
from fastweights.tasks.text.tokenizer import Tokenizer
from fastweights.train.accuracy import Accuracy, evaluate_examples, horizon
from fastweights.train.checkpoint import Checkpoint, Checkpoints
from fastweights.train.config import (
    Device,
    RunConfig,
    SampledTask,
    SequenceModelConfig,
    load_config,
)
from fastweights.train.data import load_run_task
from fastweights.train.environment import find_device
from fastweights.train.problems import load_problem
from fastweights.train.recall import RecallProblem
from fastweights.train.retrieval import RetrievalProblem
from fastweights.train.task_file import check_files, own_automaton, read_task
from fastweights.train.text import TextProblem
from fastweights.train.text_file import run_tokenizer

CheckpointName = Literal["best", "last"]
TEST_SPLITS = ("validation", "bin0", "bin1")


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run's model with the weights of one checkpoint, in evaluation mode on `device`.

    `task` is the task's name; `symbols` and `labels` are in the order of the model's ids;
    `language` is None for a run on files.
    """

    folder: Path
    config: RunConfig
    task: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    language: FormalLanguage | None
    model: nn.Module
    step: int
    device: torch.device


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One position, counted from 1. `label` is None where the model chose its padding output;
    `probability` is that of the choice; `expected` is None where the label is not known."""

    position: int
    symbol: str
    label: str | None
    probability: float
    expected: str | None


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A run's model, whatever its task, with the weights of one checkpoint, in evaluation mode."""

    folder: Path
    config: RunConfig
    model: nn.Module
    step: int
    device: torch.device


def kind_of_run(run_folder: Path) -> str:
    """The kind of the task of a run folder. Raises as `load_run` does."""
    return _config_of(run_folder).task.kind


def load_run(
    run_folder: Path, checkpoint: CheckpointName = "best", device: Device = "auto"
) -> LoadedRun:
    """The model of a run folder. Reads nothing else.

    `device` auto is the GPU where there is one, else the CPU, whatever the run was trained on.
    Raises ValueError (no run folder, a run without strings, a layer that is not there any more),
    ConfigError (damaged configuration, no CUDA device), CheckpointError (none yet, damaged) and
    RunFolderError (no task.json, damaged).
    """
    place = find_device(device)
    run_folder = Path(run_folder)
    config = own_automaton(_config_of(run_folder), run_folder)
    if not isinstance(config.model, SequenceModelConfig) or config.task.kind in ("recall", "text"):
        raise ValueError(f"{run_folder}: holds a {config.task.kind} run: it knows no strings")
    weights = Checkpoints(run_folder).load(checkpoint)
    task, symbols, labels = read_task(run_folder)
    language = None if config.task.kind == "files" else load_language(config.task.model_dump())
    # Weights that the checkpoint replaces: not drawn from torch's default generator.
    model = build_model(config.model, len(symbols) + 1, len(labels) + 1, torch.Generator())
    ready = _with_weights(model, weights, config, run_folder, place)
    return LoadedRun(
        run_folder, config, task, symbols, labels, language, ready, weights.step, place
    )


def load_model(
    run_folder: Path, checkpoint: CheckpointName = "best", device: Device = "auto"
) -> LoadedModel:
    """The model of a run folder of any kind; otherwise as `load_run`."""
    place, run_folder = find_device(device), Path(run_folder)
    config = _config_of(run_folder)
    weights = Checkpoints(run_folder).load(checkpoint)
    untrained = load_problem(config, place).build_model()
    model = _with_weights(untrained, weights, config, run_folder, place)
    return LoadedModel(run_folder, config, model, weights.step, place)


def load_text_run(
    run_folder: Path, checkpoint: CheckpointName = "best", device: Device = "auto"
) -> tuple[LoadedModel, Tokenizer]:
    """The model of a text run and its tokenizer; its corpus need not be there any more. Otherwise
    as `load_run`, and ValueError for a run of another kind, or without its tokenizer's file."""
    place, run_folder = find_device(device), Path(run_folder)
    config = _config_of(run_folder)
    if config.task.kind != "text":
        raise ValueError(f"{run_folder}: holds a {config.task.kind} run, not a text run")
    assert isinstance(config.model, SequenceModelConfig)
    weights = Checkpoints(run_folder).load(checkpoint)
    tokenizer = run_tokenizer(run_folder)
    sizes = tokenizer.vocab_size, tokenizer.vocab_size
    untrained = build_model(config.model, *sizes, torch.Generator())
    model = _with_weights(untrained, weights, config, run_folder, place)
    return LoadedModel(run_folder, config, model, weights.step, place), tokenizer


def evaluate_retrieval(run: LoadedModel) -> dict[str, dict[str, Any]]:
    """Squared error, accuracy and number of queries, on the sequences of the strict test and as
    published, whatever the run's own variant."""
    found = {}
    for variant in ("strict", "published"):
        task = run.config.task.model_copy(update={"variant": variant})
        config = run.config.model_copy(update={"task": task})
        with autocast(run):
            splits = RetrievalProblem(config, run.device).conclude(run.model, run.step)["splits"]
        found[variant] = next(iter(splits.values()))
    return found


def evaluate_again(run: LoadedModel) -> dict[str, Any]:
    """What result.json says of the weights: `splits` and, of recall, `by_length`.

    Raises RunFolderError where the text is not the one that the run learned, or that is not known.
    """
    problem = load_problem(run.config, run.device)
    problem.check(run.folder)
    with autocast(run):
        return problem.conclude(run.model, run.step)


def evaluate_text(
    run: LoadedModel,
    reading: Mapping[str, Any] | None = None,
    *,
    splits: Sequence[str] = ("validation", "test"),
    memory_length: int | None = None,
    times_context: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """`reading`, `splits` and `by_position`, as result.json has them, of a text run; and the
    `memory_length` of layers that keep their last inputs, None: all of them.

    Args:
        run: its model stays with the `memory_length`.
        reading: what differs from the run's own `train.text_scores.Reading`, by name.
        splits: the texts to read.
        memory_length: of the layers that keep their last inputs (default: the run's own).
        times_context: the loss by position goes to so many times the training context; None: none.
        progress: hears what is read, how much is done, and of how much.

    Raises ValueError for what does not fit the text or the layers, and RunFolderError where the
    text is not the one that the run learned, or that is not known.
    """
    if times_context is not None and times_context < 1:
        raise ValueError(f"by_position must be >= 1 training context, got {times_context}")
    problem = cast(TextProblem, load_problem(run.config, run.device))
    problem.check(run.folder)
    chosen = problem.reading._replace(**(reading or {}))
    found: dict[str, Any] = {"reading": problem.reading_of(splits, chosen)}
    for name in reading or {}:
        if name not in found["reading"]:
            raise ValueError(f"{name} has no meaning for window {chosen.window}")
    if memory_length is not None:
        if chosen.window != "carried" and times_context is None:
            raise ValueError(
                f"memory_length has no meaning for window {chosen.window}: no state is carried"
            )
        _set_memory_length(run, memory_length)
    elif chosen.window == "carried" and chosen != problem.reading:
        _check_memory_ends(run)
    if layers := _layers_with_memory_length(run):
        found["memory_length"] = layers[0].memory_length
    found["splits"] = {}
    with autocast(run):
        if times_context is not None:  # first: it may not fit the text, and never takes long
            hear = progress and partial(progress, "positions")
            found["by_position"] = problem.by_position(run.model, times_context, hear)
        for split in splits:
            hear = progress and partial(progress, split)
            found["splits"][split] = problem.scores(run.model, split, chosen, hear)
    return found


def memory_of_string(run: LoadedRun, string: Sequence[str]) -> list[MemoryMap]:
    """What is left of the memory of each block and head after every symbol of a string.

    Raises ValueError for an empty string, an unknown symbol, or layers without associations.
    """
    if not string:
        raise ValueError("the string is empty")
    return _memory_of_tokens(run, torch.tensor(Vocabulary(run.symbols).encode(string)))


def memory_of_text(
    run: LoadedModel, tokenizer: Tokenizer, text: str
) -> tuple[list[MemoryMap], list[str]]:
    """What is left of the memory of each block and head after every token of a text, and the text
    of each token, on one line.

    Raises ValueError for a text without tokens, or layers without associations.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise ValueError("the text has no tokens")
    names = [repr(tokenizer.decode([token]))[1:-1] for token in tokens]
    return _memory_of_tokens(run, torch.tensor(tokens)), names


def memory_of_recall(run: LoadedModel) -> tuple[list[MemoryMap], list[str]]:
    """What is left of the memory of each block and head after every token of a sequence of the
    shortest training length, and the number of each token.

    Raises ValueError for layers without associations.
    """
    tokens = RecallProblem(run.config, run.device).shortest_sequence()
    return _memory_of_tokens(run, tokens), [str(token) for token in tokens.tolist()]


def _memory_of_tokens(run: LoadedRun | LoadedModel, tokens: Tensor) -> list[MemoryMap]:
    with autocast(run):
        return map_of_model(cast(SequenceModel, run.model), tokens.to(run.device))


def memory_of_retrieval(run: LoadedModel) -> tuple[list[MemoryMap], list[str]]:
    """The maps of the first sequence of the strict validation set, and `key:value` of each pair."""
    problem = RetrievalProblem(run.config, run.device)
    keys, values = (x[0] for x in problem.validation_pairs())
    with autocast(run):
        found = maps_of_pairs(
            run.model, keys.to(run.device), values.to(run.device), problem.task.num_keys
        )
    names = [f"{key}:{value}" for key, value in zip(keys.tolist(), values.tolist(), strict=True)]
    return found, names


def _config_of(run_folder: Path) -> RunConfig:
    if not (Path(run_folder) / "config.yaml").is_file():
        raise ValueError(f"{run_folder}: is not a run folder (no config.yaml)")
    return load_config(Path(run_folder) / "config.yaml")


def _set_memory_length(run: LoadedModel, memory_length: int) -> None:
    if memory_length < 0:
        raise ValueError(f"memory_length must be >= 0, got {memory_length}")
    layers = _layers_with_memory_length(run)
    if not layers:
        assert isinstance(run.config.model, SequenceModelConfig)
        raise ValueError(
            f"memory_length: layer {run.config.model.layer} keeps none of its inputs: its memory "
            "has one size"
        )
    for layer in layers:
        layer.memory_length = memory_length


def _check_memory_ends(run: LoadedModel) -> None:
    """Raises ValueError for a state that grows to the length of the text."""
    if any(layer.memory_length is None for layer in _layers_with_memory_length(run)):
        raise ValueError(
            "window carried needs a memory_length: softmax_attention keeps every input of the text"
        )


def _layers_with_memory_length(run: LoadedModel) -> list[SoftmaxAttention | TransformerXL]:
    kinds = (SoftmaxAttention, TransformerXL)
    return [module for module in run.model.modules() if isinstance(module, kinds)]


def _with_weights(
    model: nn.Module, weights: Checkpoint, config: RunConfig, run_folder: Path, place: torch.device
) -> nn.Module:
    if config.precision == "64-true":
        model = model.double()
    try:
        model.load_state_dict(weights.model)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()  # torch lists every tensor
        raise ValueError(f"{run_folder}: the weights do not fit config.yaml: {reason}") from None
    return model.to(place).eval()


def evaluate_run(run: LoadedRun) -> dict[str, Accuracy]:
    """Accuracy on the run's own held-out splits, drawn again from its seed.

    Raises ValueError where the run was trained on files that are not there any more, and
    RunFolderError where they have changed.
    """
    task = load_run_task(run.config)
    check_files(run.config, task, run.folder)
    return evaluate_splits(run, task.splits)


def other_language(run: LoadedRun, task: Mapping[str, Any]) -> FormalLanguage:
    """The language of a task of kind formal_language, regex or dfa.

    A user's own has the windows and sizes of the run's task, where that is one, too; a pattern is
    over the run's symbols, where they are characters. Raises ValueError: an unknown name, a pattern
    or an automaton that is none, symbols or labels that the run does not know.
    """
    like: dict[str, Any] = {}
    if task["kind"] != "formal_language" and isinstance(run.config.task, SampledTask):
        like = run.config.task.model_dump(include=set(SampledTask.model_fields))
    if task["kind"] == "regex" and all(len(symbol) == 1 for symbol in run.symbols):
        like["symbols"] = run.symbols
    language = load_language({**like, **task})
    check_alphabets(run, language)
    return language


def evaluate_language(run: LoadedRun, language: FormalLanguage) -> dict[str, Accuracy]:
    """Accuracy on the held-out splits of another language, drawn with the run's seed; those of the
    menu as the run's protocol draws them.

    Raises ValueError for symbols or labels that the run does not know.
    """
    check_alphabets(run, language)
    of_the_menu = LANGUAGES.get(language.name) is language
    variant = run.config.protocol if of_the_menu else "strict"
    return evaluate_splits(run, make_splits(language, variant, run.config.seed).non_empty())


def evaluate_splits(run: LoadedRun, splits: Mapping[str, Sequence[Example]]) -> dict[str, Accuracy]:
    """Accuracy on validation, bin0 and bin1, those that exist."""
    return {name: evaluate_on(run, splits[name]) for name in TEST_SPLITS if splits.get(name)}


def evaluate_on(run: LoadedRun, examples: Sequence[Example]) -> Accuracy:
    """Accuracy on given examples. Raises ValueError for none and for unknown symbols or labels."""
    with autocast(run):
        return evaluate_examples(run.model, examples, run.symbols, run.labels, device=run.device)


def horizon_of_run(
    run: LoadedRun, lengths: Sequence[int], language: FormalLanguage | None = None
) -> dict[str, Any]:
    """Sequence accuracy at the lengths, as `result.json` has it; `language` None: the run's own.

    Raises ValueError where no language is known, and for lengths below 1.
    """
    language = language or run.language
    if language is None:
        raise ValueError(f"{run.folder}: trained on files: no language is known")
    if min(lengths) < 1:
        raise ValueError(f"lengths must be >= 1, got {min(lengths)}")
    check_alphabets(run, language)
    task = Task(language.name, run.symbols, run.labels, {}, language)
    config = run.config
    with autocast(run):
        measured = horizon(
            run.model,
            task,
            sorted(set(lengths)),
            config.horizon_sequences,
            config.seed,
            device=run.device,
        )
    if not measured or not measured["lengths"]:
        asked = ", ".join(map(str, lengths))
        raise ValueError(f"{language.name}: has no string of length {asked} or a little longer")
    return measured


@torch.inference_mode()
def predict(run: LoadedRun, string: Sequence[str]) -> list[Prediction]:
    """The label of every prefix of a string.

    `expected` ends where no word of the language goes on like the string. Raises ValueError for an
    empty string, and for an unknown symbol with its position.
    """
    if not string:
        raise ValueError("the string is empty")
    ids = Vocabulary(run.symbols).encode(string)
    with autocast(run):
        logits = run.model(torch.tensor([ids], device=run.device)).logits[0]
    probabilities = logits.double().softmax(-1)
    best = probabilities.argmax(-1).tolist()
    expected = _expected(run.language, string)
    return [
        Prediction(
            position=i + 1,
            symbol=symbol,
            label=run.labels[best[i]] if best[i] < len(run.labels) else None,
            probability=float(probabilities[i, best[i]]),
            expected=expected[i] if i < len(expected) else None,
        )
        for i, symbol in enumerate(string)
    ]


def check_alphabets(run: LoadedRun, language: FormalLanguage) -> None:
    """Raises ValueError where the language has a symbol or a label that the run does not know."""
    for kind, wanted, known in (
        ("symbol", language.symbols, run.symbols),
        ("label", language.labels, run.labels),
    ):
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ValueError(
                f"{language.name} has the {kind} {missing[0]!r}, which {run.folder} does not know "
                f"(known: {' '.join(known)})"
            )


def _expected(language: FormalLanguage | None, string: Sequence[str]) -> list[str]:
    """The labels of the longest prefix that has them."""
    if language is None:
        return []

    def has_no_label(length: int) -> bool:
        try:
            language.label(string[:length])
        except ValueError:
            return True
        return False

    lengths = range(1, len(string) + 1)
    longest = bisect_left(lengths, True, key=has_no_label)
    return language.label(string[:longest]) if longest else []


def autocast(run: LoadedRun | LoadedModel) -> torch.autocast:
    """The precision of the run, for calls of its model."""
    mixed = run.config.precision == "bf16-mixed"
    return torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=mixed)
