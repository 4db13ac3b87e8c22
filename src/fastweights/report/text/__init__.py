"""The report of language models: bits per byte, and what their experts do."""
