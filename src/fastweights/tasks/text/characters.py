"""How many characters a text has, for losses per character."""

from torch import Tensor

from fastweights.tasks.text.tokenizer import Tokenizer


def count_characters(tokens: Tensor, tokenizer: Tokenizer) -> int:
    """Unicode code points of the documents in tokens [N]; each separator counts as one.

    Documents are decoded by themselves: no character is cut in two.
    """
    ends = (tokens == tokenizer.separator).nonzero().flatten().tolist()
    starts = [0, *(end + 1 for end in ends)]
    documents = zip(starts, [*ends, len(tokens)], strict=True)
    texts = (tokenizer.decode(tokens[start:end].tolist()) for start, end in documents)
    return sum(map(len, texts)) + len(ends)
