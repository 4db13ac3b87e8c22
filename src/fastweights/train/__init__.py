"""Training: configuration, loop, optimizer, checkpoints, log.

Nothing heavy is imported here, so that `fastweights.train.config` loads without torch.
"""
