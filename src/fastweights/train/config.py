"""The configuration of one run: frozen models, YAML in and out, errors of one line each.

Imports neither torch nor any layer, so that the command line can show its help at once. The names
of languages and layers are checked where their menus are, not here.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from fastweights.atomic import write_text
from fastweights.train.messages import validation_errors_one_line

Variant = Literal["strict", "published"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "64-true", "bf16-mixed"]
Strategy = Literal["auto", "ddp", "fsdp"]
LayerOption = StrictBool | StrictInt | StrictFloat | StrictStr | None

PUBLISHED_EVALUATE_EVERY = 50
STRICT_EVALUATE_EVERY = 100
PUBLISHED_MAX_EPOCHS = 300
STRICT_MAX_STEPS = 10_000

FF_DIM = 64
WITH_FF_DIM = ("dense", "top_k")
"""Feed-forward layers whose size is `ff_dim`; those of the others are options."""

# What a run of this kind of task has where nothing else is said; formal languages have the defaults
# of the fields. Retrieval: Schlag et al. (2021), official code.
DEFAULTS: dict[str, dict[str, Any]] = {
    "retrieval": {
        "model": {"kind": "associative_memory"},
        "training": {
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "batch_size": 32,
            "max_steps": 100_000,
            "evaluate_every": 100,
            "patience": 11,
            "stop_loss": 1e-3,
        },
        "horizon_lengths": (),
    },
    "recall": {
        "model": {
            "kind": "sequence",
            "dim": 64,
            "num_layers": 2,
            "ff_dim": 128,
            "convolution_size": 4,
            "embedding": "tied",
        },
        "training": {"stop_loss": 1e-2},
        "horizon_lengths": (),
    },
    "text": {
        "model": {"kind": "sequence", "dim": 128, "num_layers": 4, "ff_dim": 512},
        "training": {
            "lr": 1e-3,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "batch_size": 32,
            "clip_norm": 0.25,
            "patience": None,
            "stop_loss": 0.0,
        },
        "horizon_lengths": (),
    },
}


class ConfigError(ValueError):
    """A configuration that cannot be used; `lines` holds one message per mistake."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class Frozen(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FormalLanguageTask(Frozen):
    """One of the eight languages of the menu."""

    kind: Literal["formal_language"] = "formal_language"
    language: str = Field(default="parity", description="name of the language in the menu")
    variant: Variant | None = Field(
        default=None,
        description="how the data are drawn, strict or published (default: as protocol)",
    )


class SampledTask(Frozen):
    """Sizes and length windows shared by the languages that the user defines."""

    train_window: tuple[int, int] = Field(
        default=(1, 50), description="shortest and longest training string (default: 1 50)"
    )
    test_window: tuple[int, int] = Field(
        default=(51, 100), description="shortest and longest string of bin1 (default: 51 100)"
    )
    num_train: int = Field(default=10_000, gt=0, description="training strings (default: 10000)")
    num_validation: int = Field(
        default=1_000, gt=0, description="validation strings (default: 1000)"
    )
    num_bin0: int = Field(
        default=2_000, gt=0, description="test strings of train_window (default: 2000)"
    )
    num_bin1: int = Field(
        default=2_000, gt=0, description="test strings of test_window (default: 2000)"
    )

    @model_validator(mode="after")
    def _windows(self) -> Self:
        for name in ("train_window", "test_window"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(
                    f"{name}: must be low, high with 1 <= low <= high, got {low}, {high}"
                )
        if self.test_window[0] <= self.train_window[1]:
            raise ValueError(
                f"test_window: must begin above the train_window's end {self.train_window[1]}, "
                f"got {self.test_window[0]}"
            )
        return self


class RegexTask(SampledTask):
    """Membership of every prefix in the language of a regular expression."""

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, description="regular expression, one character a symbol")
    symbols: str | None = Field(
        default=None, description="input alphabet as one string (default: the pattern's)"
    )


class DfaTask(SampledTask):
    """Membership of every prefix in the language of a finite automaton read from a file."""

    kind: Literal["dfa"] = "dfa"
    path: Path = Field(description="file that describes the automaton")


class FilesTask(Frozen):
    """Pairs of files `.src`/`.tgt`, one sequence a line."""

    kind: Literal["files"] = "files"
    folder: Path = Field(description="folder with the .src and .tgt files")
    variant: Variant | None = Field(
        default=None,
        description="strict: a validation set is cut from the training set where there is no file "
        "for it; published: it is not (default: as protocol)",
    )


class RetrievalTask(Frozen):
    """Associative retrieval: which value was stored with this key? Schlag et al. (2021), 6.1."""

    kind: Literal["retrieval"] = "retrieval"
    num_keys: int = Field(gt=0, description="number of keys, and of values, S")
    replacement: bool = Field(
        default=False,
        description="false: each key once (setting 1); true: 2 S keys drawn with replacement, "
        "whose last value counts (setting 2)",
    )
    variant: Variant | None = Field(
        default=None,
        description="published: evaluated as in the official code (sequences of length S, at most "
        "200 of the keys, mean of means); strict: as trained, every key (default: as protocol)",
    )


Lengths = tuple[Annotated[int, Field(gt=0)], ...]


class RecallTask(Frozen):
    """Multi-query associative recall: every key is asked once. Arora et al. (2023)."""

    kind: Literal["recall"] = "recall"
    vocab_size: int = Field(
        default=8192, gt=0, description="tokens: keys in the lower half, values in the upper"
    )
    tokens_per_key: int = Field(
        default=8, ge=4, description="a sequence has a key for so many of its tokens"
    )
    writes_per_key: int = Field(
        default=1,
        gt=0,
        description="how often a sequence gives each key a value, another one each time; the last "
        "one counts",
    )
    random_filler: bool = Field(
        default=True,
        description="tokens between the queries: true: random ones, false: always the same",
    )
    lengths: Lengths = Field(
        default=(64, 128, 256),
        min_length=1,
        description="of the training and validation sequences, in turn (default: 64 128 256)",
    )
    test_lengths: Lengths = Field(
        default=(64, 128, 256, 512, 1024, 2048),
        min_length=1,
        description="of the test sequences (default: 64 128 256 512 1024 2048)",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("lengths", "test_lengths"):
            lengths = getattr(self, name)
            if list(lengths) != sorted(set(lengths)):
                raise ValueError(f"{name}: must be ascending without repeats, got {lengths}")
            if lengths[0] < self.tokens_per_key:
                raise ValueError(
                    f"{name}: {lengths[0]} is too short for a key, with tokens_per_key "
                    f"{self.tokens_per_key}"
                )
        if self.tokens_per_key < 2 * self.writes_per_key + 2:
            raise ValueError(
                f"tokens_per_key: {self.writes_per_key} writes and a query need "
                f"{2 * self.writes_per_key + 2}, got {self.tokens_per_key}"
            )
        most = self.writes_per_key * self.num_keys(max(*self.lengths, *self.test_lengths))
        if self.vocab_size < 2 * most + 2:
            raise ValueError(
                f"vocab_size: {most} pairs of different keys need {2 * most + 2}, "
                f"got {self.vocab_size}"
            )
        return self

    def num_keys(self, length: int) -> int:
        """Of a sequence."""
        return length // self.tokens_per_key


class TextTask(Frozen):
    """Language modelling: the next token of a text."""

    kind: Literal["text"] = "text"
    text: str = Field(
        default="python_stdlib",
        min_length=1,
        description="a file, a folder of files, a folder made by `fastweights data prepare`, or "
        "python_stdlib: the sources of Python's own library (default: python_stdlib)",
    )
    context_length: int = Field(default=256, gt=0, description="tokens that a model sees at once")
    carry_state: bool = Field(
        default=False,
        description="the state at the end of a segment is where the next one of the lane begins; "
        "gradients stop there",
    )
    held_out_tokens: int | None = Field(
        default=None,
        gt=0,
        description="that are read of validation and test text each, from the beginning "
        "(default: all)",
    )


Task = Annotated[
    FormalLanguageTask | RegexTask | DfaTask | FilesTask | RetrievalTask | RecallTask | TextTask,
    Field(discriminator="kind"),
]


class SequenceModelConfig(Frozen):
    """A sequence model: embedding, `num_layers` blocks around one kind of layer, linear head."""

    kind: Literal["sequence"] = "sequence"
    layer: str = Field(default="delta_net", description="name of the sequence layer in the menu")
    layer_options: dict[str, LayerOption] = Field(
        default_factory=dict, description="further arguments of the layer, name: value"
    )
    dim: int = Field(default=32, gt=0, description="width D")
    num_layers: int = Field(default=1, gt=0, description="number of blocks")
    feed_forward: str = Field(
        default="dense",
        description="name of the feed-forward layer in the menu; block plain has none",
    )
    feed_forward_options: dict[str, LayerOption] = Field(
        default_factory=dict, description="further arguments of the feed-forward layer, name: value"
    )
    ff_dim: int | None = Field(
        default=None,
        gt=0,
        description=f"hidden width of the feed-forward layers {' and '.join(WITH_FF_DIM)}; the "
        f"sizes of others are among their options (default: {FF_DIM})",
    )
    convolution_size: int | None = Field(
        default=None,
        gt=0,
        description="inputs that a short convolution before each layer sees, null: none "
        "(default: null)",
    )
    block: str | None = Field(
        default=None,
        description="placement of norm and residual (default: the one published for the layer)",
    )
    embedding: Literal["learned", "one_hot", "tied"] = Field(
        default="learned",
        description="input embedding; tied: it is the output layer's weight, too",
    )
    scale_embedding: bool = Field(
        default=False, description="multiply the embedding by the square root of the width"
    )
    embedding_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout probability after the embedding and before the output layer",
    )
    positions: Literal["none", "sinusoidal"] = Field(
        default="none", description="what is added to the embedding"
    )
    adaptive_cutoffs: tuple[int, ...] | None = Field(
        default=None,
        description="embedding tied: an adaptive softmax over tokens in the order of their "
        "frequency, with clusters that begin here, null: none (default: null)",
    )
    initialization: Literal["layers", "normal"] = Field(
        default="layers",
        description="initial weights: those of each layer, or N(0, 0.02) for embeddings and linear "
        "layers",
    )
    final_norm: bool | None = Field(
        default=None,
        description="a LayerNorm before the output layer (default: true for block post_norm)",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout probability")

    @model_validator(mode="before")
    @classmethod
    def _width(cls, values: Any) -> Any:
        """A width for the feed-forward layers that have one."""
        if not isinstance(values, dict) or values.get("ff_dim") is not None:
            return values
        if values.get("feed_forward", "dense") not in WITH_FF_DIM:
            return values
        return {**values, "ff_dim": FF_DIM}


class AssociativeMemoryConfig(Frozen):
    """One memory that stores key-value pairs, and the maps that make keys and queries of tokens."""

    kind: Literal["associative_memory"] = "associative_memory"
    rule: Literal["softmax", "sum", "delta", "clamped_delta"] = Field(
        default="delta", description="how the memory is written and read"
    )
    feature_map: str = Field(
        default="dpfp", description="feature map of keys and queries; softmax has none"
    )
    feature_normalization: Literal["none", "sum"] | None = Field(
        default=None,
        description="of the features: sum, so that they add up to 1 (default: sum for delta)",
    )
    attention_normalizer: bool | None = Field(
        default=None,
        description="divide what is read by the sum of its weights (default: true for sum)",
    )
    dpfp_nu: int = Field(default=1, gt=0, description="capacity factor of dpfp")
    num_random_features: int = Field(
        default=128, gt=0, description="directions of favor, half its features"
    )
    favor_temperature: float | None = Field(
        default=None,
        gt=0,
        description="factor on the inputs of favor (default: head_dim^-0.25); the published code "
        "has 1",
    )
    favor_redraw: bool = Field(
        default=True,
        description="favor: new directions at every forward pass, as in the published code",
    )
    head_dim: int = Field(default=64, gt=0, description="width of keys and queries")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rule == "softmax" and (self.feature_normalization or self.attention_normalizer):
            raise ValueError("rule: softmax has no feature_normalization and attention_normalizer")
        return self

    def resolved(self) -> AssociativeMemoryConfig:
        """The same with the defaults that depend on the rule spelled out."""
        update: dict[str, Any] = {}
        if self.rule != "softmax" and self.feature_normalization is None:
            update["feature_normalization"] = "sum" if self.rule == "delta" else "none"
        if self.rule != "softmax" and self.attention_normalizer is None:
            update["attention_normalizer"] = self.rule == "sum"
        if self.feature_map == "favor" and self.favor_temperature is None:
            update["favor_temperature"] = self.head_dim**-0.25
        return self.model_copy(update=update)


ModelConfig = Annotated[SequenceModelConfig | AssociativeMemoryConfig, Field(discriminator="kind")]


class TrainingConfig(Frozen):
    """Optimizer, length of the run, evaluation and stop rules."""

    lr: float = Field(default=3e-3, gt=0, description="learning rate of Adam")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.995), description="decay rates of Adam's averages (default: 0.9 0.995)"
    )
    eps: float = Field(default=1e-9, gt=0, description="Adam's term against division by zero")
    batch_size: int = Field(
        default=64,
        gt=0,
        description="sequences a step; recall: of the shortest length, of the others as many "
        "tokens (default: 64)",
    )
    accumulate: int = Field(
        default=1,
        gt=0,
        description="text: parts of a batch that are computed one after the other, to save memory; "
        "experts are balanced within a part",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="compute every block again in the backward pass, to save memory",
    )
    max_steps: int | None = Field(
        default=None,
        gt=0,
        description="optimizer steps at most "
        f"(default: {STRICT_MAX_STEPS} under strict, no limit under published)",
    )
    max_epochs: int | None = Field(
        default=None,
        gt=0,
        description="passes over the training set at most "
        f"(default: {PUBLISHED_MAX_EPOCHS} under published, no limit under strict)",
    )
    evaluate_every: int | None = Field(
        default=None,
        gt=0,
        description="steps between evaluations (default: "
        f"{STRICT_EVALUATE_EVERY} under strict; {PUBLISHED_EVALUATE_EVERY} and every epoch's end "
        "under published)",
    )
    checkpoint_every: int = Field(default=500, gt=0, description="steps between checkpoints")
    patience: int | None = Field(
        default=30,
        gt=0,
        description="strict: stop after this many evaluations in which neither the validation "
        "accuracy nor its nats per token improved; null: never (default: 30)",
    )
    stop_loss: float = Field(
        default=1e-5,
        ge=0,
        description="strict: stop at validation accuracy 1.0 once nats per token are below this; "
        "retrieval: once the squared error is; recall: once nats per query are; text: once nats "
        "per token are",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest gradient norm, null: no clipping (default: null)"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    warmup_steps: int = Field(
        default=0, ge=0, description="steps of linear warm-up of the learning rate"
    )
    lr_decay: Literal["none", "cosine"] = Field(
        default="none",
        description="after the warm-up: none, or cosine: half a cosine that ends at 0 after "
        "max_steps",
    )


class RunConfig(Frozen):
    """Everything that determines a run."""

    task: Task = Field(
        default=FormalLanguageTask(), description="what is learned (default: parity)"
    )
    model: ModelConfig = Field(default=SequenceModelConfig(), description="the model")
    training: TrainingConfig = Field(default=TrainingConfig(), description="the training")
    protocol: Variant = Field(
        default="strict",
        description="selection: strict on the validation split, published on the test bins",
    )
    seed: int = Field(
        default=1, ge=0, lt=2**63, description="seed of data, initial weights and order"
    )
    device: Device = Field(default="auto", description="auto: cuda where there is a GPU, else cpu")
    precision: Precision = Field(
        default="32-true", description="precision, as Lightning Fabric names it"
    )
    strategy: Strategy = Field(
        default="auto",
        description="how the processes that torchrun starts share the work: ddp, each with the "
        "whole model, or fsdp, each with a part of every weight; auto: ddp, or one process",
    )
    num_threads: int | None = Field(
        default=None, gt=0, description="CPU threads, null: torch's own choice (default: null)"
    )
    horizon_lengths: Lengths = Field(
        default=(50, 100, 150, 200, 300, 400, 500, 750, 1000),
        description="lengths at which the horizon is measured, ascending; none: no horizon "
        "(default: 50 100 150 200 300 400 500 750 1000)",
    )
    horizon_sequences: int = Field(default=64, gt=0, description="strings a length of the horizon")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """A task without `kind` is one of the menu's languages; a model without it, and every value
        that is not given, is what the task has by default."""
        if not isinstance(values, dict):
            return values
        if isinstance(values.get("task"), dict):
            values = merge({"task": {"kind": "formal_language"}}, values)
            values = merge(_task_defaults(values["task"]["kind"], values.get("model")), values)
        if isinstance(values.get("model"), dict):
            values = merge({"model": {"kind": "sequence"}}, values)
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.horizon_lengths) != sorted(set(self.horizon_lengths)):
            raise ValueError(
                f"horizon_lengths: must be ascending without repeats, got {self.horizon_lengths}"
            )
        needed = DEFAULTS.get(self.task.kind, {}).get("model", {}).get("kind", "sequence")
        if self.model.kind != needed:
            raise ValueError(
                f"model.kind: task {self.task.kind} needs {needed!r}, got {self.model.kind!r}"
            )
        if self.task.kind in ("recall", "text") and self.protocol == "published":
            raise ValueError(
                f"protocol: task {self.task.kind} knows 'strict' alone, got 'published'"
            )
        if self.strategy == "fsdp" and getattr(self.task, "carry_state", False):
            raise ValueError("strategy: 'fsdp' cannot carry a state (task.carry_state), 'ddp' can")
        self._check_memory_savers()
        if (
            isinstance(self.task, TextTask)
            and self.task.carry_state
            and isinstance(self.model, SequenceModelConfig)
            and self.model.layer == "softmax_attention"
            and self.model.layer_options.get("memory_length") is None
        ):
            raise ValueError(
                "task.carry_state: softmax_attention would keep every token of an epoch: give its "
                "layer option memory_length"
            )
        if self.training.lr_decay == "cosine" and self.resolved().training.max_steps is None:
            raise ValueError("training.lr_decay: 'cosine' needs max_steps")
        variant = getattr(self.task, "variant", None)
        formal = not isinstance(self.task, RetrievalTask)
        if formal and variant == "published" and self.protocol == "strict":
            raise ValueError(
                "task.variant: 'published' has no validation split, which protocol 'strict' needs; "
                "use variant 'strict' or protocol 'published'"
            )
        return self

    def _check_memory_savers(self) -> None:
        parts, batch_size = self.training.accumulate, self.training.batch_size
        if parts > 1 and self.task.kind != "text":
            raise ValueError(
                f"training.accumulate: task {self.task.kind} knows 1 alone, got {parts}"
            )
        if batch_size % parts:
            raise ValueError(
                f"training.accumulate: must divide the batch_size {batch_size}, got {parts}"
            )
        if self.training.activation_checkpointing and self.model.kind != "sequence":
            raise ValueError(
                f"training.activation_checkpointing: a model {self.model.kind} has no blocks"
            )

    def resolved(self) -> RunConfig:
        """The same run with every default that depends on the protocol spelled out."""
        published = self.protocol == "published"
        training = self.training
        if training.evaluate_every is None:
            every = PUBLISHED_EVALUATE_EVERY if published else STRICT_EVALUATE_EVERY
            training = training.model_copy(update={"evaluate_every": every})
        if training.max_steps is None and not published:
            training = training.model_copy(update={"max_steps": STRICT_MAX_STEPS})
        if training.max_epochs is None and published and self.task.kind not in DEFAULTS:
            training = training.model_copy(update={"max_epochs": PUBLISHED_MAX_EPOCHS})
        task, model = self.task, self.model
        if isinstance(task, FormalLanguageTask | FilesTask | RetrievalTask) and not task.variant:
            task = task.model_copy(update={"variant": self.protocol})
        if isinstance(model, AssociativeMemoryConfig):
            model = model.resolved()
        return self.model_copy(update={"task": task, "model": model, "training": training})


def _task_defaults(kind: Any, model: Any) -> dict[str, Any]:
    """What is in DEFAULTS; no `ff_dim` where the given model has a feed-forward layer without."""
    defaults = DEFAULTS.get(kind, {})
    if not isinstance(model, dict) or model.get("feed_forward", "dense") in WITH_FF_DIM:
        return defaults
    sizes = {key: value for key, value in defaults.get("model", {}).items() if key != "ff_dim"}
    return {**defaults, "model": sizes} if sizes else defaults


def differences(
    want: Mapping[str, Any], got: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Keys at which two dumped configurations differ, as (dotted key, value in want, in got)."""
    found: list[tuple[str, Any, Any]] = []
    for key in [*want, *(key for key in got if key not in want)]:
        a, b = want.get(key), got.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((f"{prefix}{key}", a, b))
    return found


# --- files ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e-3 as a number (YAML 1.1 does not) and refuses a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """The configuration of a mapping; raises ConfigError with one line a mistake."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_errors_one_line(error, RunConfig)) from None


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of a YAML file (None: the defaults) with `overrides` laid over it.

    Overrides are nested as the file is; one with another `task.kind` replaces the whole task.
    Raises ConfigError: file missing, not UTF-8, not YAML, or values that are not valid.
    """
    values: Any = {}
    if path is not None:
        values = _read_yaml(Path(path))
    try:
        return parse_config(merge(values, overrides or {}))
    except ConfigError as error:
        if path is None:
            raise
        raise ConfigError([f"{path}: {line}" for line in error.lines]) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start}"]) from None
    except Exception as error:  # PyYAML lets out TypeError (a list as a key), ValueError (a date of
        # month 99), RecursionError, and KeyError, AttributeError and IndexError (!!bool maybe)
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError([f"{path}:{where} not valid YAML: {reason}"]) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold key: value pairs, got {type(values).__name__}"])
    return values


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping; another `kind` replaces a mapping whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            replaced = "kind" in value and value["kind"] != old.get("kind", "formal_language")
            merged[key] = dict(value) if replaced else merge(old, value)
        else:
            merged[key] = value
    return merged


def save_config(config: RunConfig, path: Path) -> None:
    """Write every value, defaults included, as YAML (temporary file, then rename)."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
