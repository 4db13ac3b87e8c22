"""What is wrong with a configuration, one line a mistake."""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fastweights.near_names import near_names

_RULES = {
    "greater_than": "must be > {gt:g}, got {input}",
    "greater_than_equal": "must be >= {ge:g}, got {input}",
    "less_than": "must be < {lt:g}, got {input}",
    "less_than_equal": "must be <= {le:g}, got {input}",
    "finite_number": "must be a finite number, got {input}",
    "int_type": "must be a whole number, got {input}",
    "int_parsing": "must be a whole number, got {input}",
    "int_from_float": "must be a whole number, got {input}",
    "float_type": "must be a number, got {input}",
    "float_parsing": "must be a number, got {input}",
    "string_type": "must be text, got {input}",
    "string_too_short": "must not be empty",
    "path_type": "must be a path, got {input}",
    "missing": "is missing",
    "model_type": "must be key: value pairs, got {input}",
    "model_attributes_type": "must be key: value pairs, got {input}",
    "dict_type": "must be key: value pairs, got {input}",
    "tuple_type": "must be a list, got {input}",
    "value_error": "{error}",
}


def validation_errors_one_line(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a mistake, `training.lr: must be > 0, got -1`, with near names for unknown keys."""
    lines: dict[str, str] = {}
    for entry in error.errors(include_url=False):
        name, owner, plain_union = _walk(root, entry["loc"])
        context = {"input": _shown(entry["input"]), **entry.get("ctx", {})}
        kind = entry["type"]
        if kind == "extra_forbidden":
            key, known = str(entry["loc"][-1]), list(owner.model_fields) if owner else []
            message = f"unknown key{near_names(key, known)}"
        elif kind == "literal_error":
            options = re.findall(r"'([^']*)'", context["expected"])
            near = near_names(str(entry["input"]), options, otherwise_all=False)
            message = f"must be {context['expected']}, got {context['input']}{near}"
        elif kind == "union_tag_invalid":
            tags = re.findall(r"'([^']*)'", context["expected_tags"])
            name, near = f"{name}.kind", near_names(context["tag"], tags, otherwise_all=False)
            message = f"must be {context['expected_tags']}, got {context['tag']!r}{near}"
        elif plain_union:
            message = f"must be true or false, a number or text, got {context['input']}"
        elif kind in _RULES:
            message = _RULES[kind].format(**context)
        else:
            message = f"{entry['msg'][0].lower()}{entry['msg'][1:]}, got {context['input']}"
        if kind == "value_error" and re.match(r"[\w.]+: ", message):  # the validator named the key
            inner, _, message = message.partition(": ")
            name = f"{name}.{inner}" if name else inner
        lines.setdefault(name, " ".join(message.split()))
    return [f"{name}: {message}" if name else message for name, message in lines.items()]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _walk(
    root: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[str, type[BaseModel] | None, bool]:
    """Dotted name of a location without union tags, the model that owns its last key, and whether
    it lies inside a union of plain values."""
    here: Any = root
    owner: type[BaseModel] | None = root
    names: list[str] = []
    for part in loc:
        variants = _models(here)
        tagged = (
            [m for m in variants if part == m.model_fields["kind"].default]
            if len(variants) > 1
            else []
        )
        if tagged:
            here = owner = tagged[0]
            continue
        if variants:
            owner = variants[0]
            field = owner.model_fields.get(str(part))
            here = field.annotation if field else None
            names.append(str(part))
        elif _is_union(here) and len([a for a in get_args(here) if a is not types.NoneType]) > 1:
            return ".".join(names), owner, True
        else:
            arguments = [a for a in get_args(here) if a is not Ellipsis]
            here = arguments[-1] if arguments else None
            names.append(str(part))
    return ".".join(names), owner, False


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The configuration models among an annotation's variants."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated or _is_union(annotation):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
