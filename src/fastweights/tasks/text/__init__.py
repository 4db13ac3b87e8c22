"""Text to model: `documents` finds it and keeps documents apart, `tokenizer` makes tokens of it,
`corpus` is what a run trains on.
"""
