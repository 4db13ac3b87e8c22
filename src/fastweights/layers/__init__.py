"""Parameters: one layer a file, named as in its paper.

A sequence layer maps `x [B, T, D]` and a state to `y [B, T, D]` and the next state. A feed-forward
layer maps `x [B, T, D]` to `y [B, T, D]` and a balance loss. Neither has a residual or a norm:
those belong to the block (`fastweights.models.block`).
"""
