"""The report of associative retrieval: losses beside the published ones, orders and floors."""
