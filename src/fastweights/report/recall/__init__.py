"""The report of multi-query associative recall: accuracy by length, and who is ahead."""
