"""The sft stage: the model learns the assistant's own tokens of conversations."""

from nanochat_jax.config.stages import SFTTrain
from nanochat_jax.train import chat, stage


def run(config: SFTTrain) -> stage.Section:
    """Passes over the mixture (or `num_iterations` steps); returns the report's section."""
    return "Chat SFT", chat.run("sft", config)
