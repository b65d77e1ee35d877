"""Rows and tokens of one optimizer step, for the config of any stage.

The stages count in different units, as the original's scripts do: base and mid in tokens, sft in
rows (padded ones hold different numbers of tokens), rl in questions and replies to each.
"""

from nanochat_jax.config.stages import RLTrain, SFTTrain, Stage


def rows_per_step(config: Stage) -> int:
    """Rows of one optimizer step; 1 where the batch is derived later from the horizon."""
    if isinstance(config, RLTrain):
        return config.examples_per_step * config.num_samples
    if isinstance(config, SFTTrain) and config.total_batch_size <= 0:
        return config.target_examples_per_step
    return max(1, config.total_batch_size // config.max_seq_len)


def tokens_per_step(config: Stage) -> int:
    """Tokens of one optimizer step of rows of the full length; -1 or less: derived later."""
    if isinstance(config, RLTrain) or (
        isinstance(config, SFTTrain) and config.total_batch_size <= 0
    ):
        return rows_per_step(config) * config.max_seq_len
    return config.total_batch_size
