"""Configurations: YAML in and out, every mistake one line with the value and the near names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fastweights.train.config import (
    ConfigError,
    DfaTask,
    FilesTask,
    FormalLanguageTask,
    RegexTask,
    RunConfig,
    differences,
    load_config,
    merge,
    parse_config,
    save_config,
)

COMMITTED = Path(__file__).parents[2] / "results" / "formal-languages"

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"training": {"lr": -1}}, "training.lr: must be > 0, got -1"),
    ({"training": {"lr": float("nan")}}, "training.lr: must be a finite number, got nan"),
    (
        {"training": {"batch_sise": 3}},
        "training.batch_sise: unknown key; did you mean 'batch_size'?",
    ),
    ({"training": {"clip_norm": "x"}}, "training.clip_norm: must be a number, got 'x'"),
    ({"modle": {}}, "modle: unknown key; did you mean 'model'?"),
    ({"model": 3}, "model: must be key: value pairs, got 3"),
    ({"model": {"dim": 3.5}}, "model.dim: must be a whole number, got 3.5"),
    (
        {"model": {"layer_options": {"bias": [1]}}},
        "model.layer_options.bias: must be true or false, a number or text, got [1]",
    ),
    (
        {"model": {"embedding": "lernd"}},
        "model.embedding: must be 'learned', 'one_hot' or 'tied', got 'lernd'; did you mean "
        "'learned'?",
    ),
    (
        {"task": {"kind": "regx"}},
        "task.kind: must be 'formal_language', 'regex', 'dfa', 'files', 'retrieval', 'recall', "
        "'text', got "
        "'regx'; did you mean 'regex'?",
    ),
    ({"task": {"kind": "regex"}}, "task.pattern: is missing"),
    (
        {"task": {"kind": "formal_language", "langage": "parity"}},
        "task.langage: unknown key; did you mean 'language'?",
    ),
    (
        {"task": {"kind": "regex", "pattern": "a", "train_window": [5, 3]}},
        "task.train_window: must be low, high with 1 <= low <= high, got 5, 3",
    ),
    (
        {"task": {"kind": "regex", "pattern": "a", "train_window": [1, 60]}},
        "task.test_window: must begin above the train_window's end 60, got 51",
    ),
    ({"horizon_lengths": [3, 0]}, "horizon_lengths.1: must be > 0, got 0"),
    (
        {"horizon_lengths": [3, 2]},
        "horizon_lengths: must be ascending without repeats, got (3, 2)",
    ),
    (
        {"protocol": "publish"},
        "protocol: must be 'strict' or 'published', got 'publish'; did you mean 'published'?",
    ),
    (
        {"task": {"variant": "published"}},
        "task.variant: 'published' has no validation split, which protocol 'strict' needs; "
        "use variant 'strict' or protocol 'published'",
    ),
]


@pytest.mark.parametrize(("values", "line"), MISTAKES)
def test_a_mistake_is_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert caught.value.lines == [line]


def test_every_mistake_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"training": {"lr": 0, "batch_size": 0}, "seed": "x"})
    assert caught.value.lines == [
        "training.lr: must be > 0, got 0",
        "training.batch_size: must be > 0, got 0",
        "seed: must be a whole number, got 'x'",
    ]


def test_a_far_name_lists_all_keys() -> None:
    with pytest.raises(
        ConfigError, match=r"model.zzz: unknown key; known: kind, layer, layer_options, dim"
    ):
        parse_config({"model": {"zzz": 1}})


@pytest.mark.parametrize(
    "task",
    [
        FormalLanguageTask(language="dyck_1"),
        RegexTask(pattern="(ab)*", symbols="abc"),
        DfaTask(path=Path("even.json")),
        FilesTask(folder=Path("data")),
    ],
)
def test_saved_and_loaded_is_equal(task: Any, tmp_path: Path) -> None:
    config = RunConfig(task=task, seed=3)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["training"]["lr"] == 3e-3  # defaults are spelled out


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 2


def test_resolved_spells_out_what_the_protocol_decides() -> None:
    strict, published = RunConfig().resolved(), RunConfig(protocol="published").resolved()
    for config in (strict, published):
        assert isinstance(config.task, FormalLanguageTask)
        assert config.task.variant == config.protocol
    assert (strict.training.evaluate_every, strict.training.max_epochs) == (100, None)
    assert (published.training.evaluate_every, published.training.max_epochs) == (50, 300)
    assert (strict.training.max_steps, published.training.max_steps) == (10_000, None)
    assert strict.resolved() == strict


def test_layer_options_keep_their_types(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {layer_options: {a: 3e-3, b: yes, c: 1, d: x}}\n")
    options = load_config(tmp_path / "c.yaml").model.layer_options
    assert [(value, type(value)) for value in options.values()] == [
        (0.003, float),
        (True, bool),
        (1, int),
        ("x", str),
    ]


@pytest.mark.parametrize(
    ("model", "task", "width"),
    [
        ({}, {}, 64),
        ({"ff_dim": None}, {}, 64),
        ({"feed_forward": "top_k"}, {}, 64),
        ({"feed_forward": "sigma_moe"}, {}, None),
        ({}, {"kind": "recall"}, 128),
        ({"feed_forward": "top_k"}, {"kind": "recall"}, 128),
        ({"feed_forward": "sigma_moe"}, {"kind": "recall"}, None),
        ({"feed_forward": "sigma_moe", "ff_dim": 8}, {"kind": "recall"}, 8),  # the menu refuses it
    ],
)
def test_only_layers_with_a_width_get_one(
    model: dict[str, Any], task: dict[str, Any], width: int | None, tmp_path: Path
) -> None:
    config = parse_config({"model": model, "task": task})
    assert config.model.ff_dim == width
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_configurations_from_before_there_was_a_choice_are_dense() -> None:
    old = load_config(COMMITTED / "aa_star" / "delta_net" / "seed_1" / "config.yaml").model
    assert (old.feed_forward, old.feed_forward_options, old.ff_dim) == ("dense", {}, 64)
    assert old.final_norm is None


def test_overrides_lie_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training: {lr: 0.1, batch_size: 8}\ntask: {language: dyck_1}\n")
    config = load_config(path, {"training": {"lr": 0.2}})
    assert (config.training.lr, config.training.batch_size) == (0.2, 8)
    other = load_config(path, {"task": {"kind": "regex", "pattern": "a*"}})  # no `language` left
    assert isinstance(other.task, RegexTask)
    assert merge({"a": {"b": 1}}, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"training:\n  lr: 1\n  lr: 2\n", "line 3 not valid YAML: the key 'lr' is there twice"),
        (b"a: [1\n", "not valid YAML"),
        (b"[" * 5000, "not valid YAML: maximum recursion depth exceeded"),
        (b"{[1, 2]: 3}\n", "not valid YAML: unhashable type: 'list'"),
        (b"[a, b]: 1\n", "not valid YAML: unhashable type: 'list'"),
        (b"seed: 2001-99-99\n", "not valid YAML: month must be in 1..12"),
        (b"seed: !!bool maybe\n", "not valid YAML: 'maybe'"),
        (b"seed: !!timestamp soon\n", "not valid YAML: "),
        (b"seed: 1\x00\n", "not valid YAML: unacceptable character #x0000"),
        (b"&a {training: *a}\n", "training.training: unknown key"),
        (b"- 1\n", "must hold key: value pairs, got list"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"training: {lr: -1}\n", "training.lr: must be > 0, got -1"),
    ],
)
def test_a_bad_file_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    [line] = caught.value.lines
    assert line.startswith(f"{path}:")
    assert reason in line
    assert "\n" not in line


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_differences_name_the_key_and_both_values() -> None:
    a = RunConfig().model_dump()
    b = RunConfig(seed=2).model_dump()
    b["training"]["lr"] = 1.0
    assert differences(a, b) == [("training.lr", 3e-3, 1.0), ("seed", 1, 2)]
    assert differences({"x": 1}, {"y": 2}) == [("x", 1, None), ("y", None, 2)]
