"""Data to train on. Knows nothing of models; the languages themselves need no torch."""
