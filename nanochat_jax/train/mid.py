"""The mid stage: the base model learns conversations and tools, on every token."""

from nanochat_jax.config.stages import MidTrain
from nanochat_jax.train import chat, stage


def run(config: MidTrain) -> stage.Section:
    """One pass over the mixture (or `num_iterations` steps); returns the report's section."""
    return "Midtraining", chat.run("mid", config)
