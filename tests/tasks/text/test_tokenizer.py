"""Text to tokens and back."""

from fastweights.tasks.text.tokenizer import ByteTokenizer


def test_bytes():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aä") == [97, 195, 164]
    assert tokenizer.decode([97, 195, 164]) == "aä"
    assert tokenizer.decode([195]) == "\N{REPLACEMENT CHARACTER}"
