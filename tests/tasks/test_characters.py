import torch

from fastweights.tasks.text.characters import count_characters
from fastweights.tasks.text.tokenizer import ByteTokenizer


def tokens(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def test_characters_are_code_points():
    text = "Σ πάντα\0ῥεῖ 🌊\0"
    assert count_characters(tokens(text.encode()), ByteTokenizer()) == len(text)


def test_a_text_that_begins_and_ends_anywhere():
    """What is left of a character at an end counts as one."""
    part = "πβ".encode()
    assert count_characters(tokens(part[1:]), ByteTokenizer()) == 2
    assert count_characters(tokens(b"\0ab\0\0c"), ByteTokenizer()) == 6
