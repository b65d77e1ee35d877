"""Text to ids and back, and a conversation to ids with the mask of what is supervised.

`bpe` holds the tokenizer itself, `chat_format` all of the chat format, `files` what lies on disk.
"""

from nanochat_jax.tokenizer.bpe import SPLIT_PATTERN, SPLIT_PATTERNS, Tokenizer
from nanochat_jax.tokenizer.chat_format import SPECIAL_TOKENS, ConversationError

__all__ = [
    "SPECIAL_TOKENS",
    "SPLIT_PATTERN",
    "SPLIT_PATTERNS",
    "ConversationError",
    "Tokenizer",
]
