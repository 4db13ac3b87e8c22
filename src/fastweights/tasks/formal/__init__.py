"""Formal languages: every position of a string is labelled from its prefix.

`menu.LANGUAGES` is the menu, `menu.load_task` makes a task of it; `splits.make_splits` draws the
sets, `files` reads and writes `.src`/`.tgt` pairs, `encode` makes tensors (the only module that
imports torch when it is imported).
"""
