"""Vocabulary, padding and mask."""

import pytest
import torch

from fastweights.tasks.formal.encode import Vocabulary, encode
from fastweights.tasks.formal.language import Example
from fastweights.tasks.formal.menu import LANGUAGES


def test_padding_and_mask():
    examples = [Example(("a", "b", "a"), ("y", "x", "y")), Example(("b",), ("x",))]
    inputs, targets, mask = encode(examples, "ab", "xy")
    assert inputs.tolist() == [[0, 1, 0], [1, 2, 2]]
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert inputs.dtype == targets.dtype == torch.int64 and mask.dtype == torch.bool


@pytest.mark.parametrize("name", list(LANGUAGES))
def test_decoding_gives_the_examples_back(name, make_generator):
    language, generator = LANGUAGES[name], make_generator(0)
    words = [language.sample_of_length(n, generator) for n in language.lengths(1, 24)]
    examples = [language.example(word) for word in words]
    batch = encode(examples, language.symbols, language.labels)
    symbols, labels = Vocabulary(language.symbols), Vocabulary(language.labels)
    for row, example in enumerate(examples):
        counted = batch.mask[row]
        assert symbols.decode(batch.inputs[row][counted].tolist()) == example.inputs
        assert labels.decode(batch.targets[row][counted].tolist()) == example.targets
        assert (batch.inputs[row][~counted] == symbols.padding_id).all()
        assert (batch.targets[row][~counted] == 0).all()


def test_errors():
    with pytest.raises(ValueError, match=r"^unknown symbol 'c' at position 2 \(symbols: a b\)$"):
        Vocabulary("ab").encode("ac")
    with pytest.raises(ValueError, match=r"^id 2 is outside 0\.\.1$"):
        Vocabulary("ab").decode([0, 2])
    with pytest.raises(ValueError, match=r"^symbols occur twice: a b a$"):
        Vocabulary("aba")
    with pytest.raises(ValueError, match=r"^no sequences to encode$"):
        encode([], "ab", "xy")
    with pytest.raises(ValueError, match=r"^2 inputs but 1 targets$"):
        encode([Example(("a", "a"), ("x",))], "ab", "xy")
