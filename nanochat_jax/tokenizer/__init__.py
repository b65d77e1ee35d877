"""Text to ids and back, and a conversation to ids with the mask of what is learnt.

`bpe` holds the tokenizer itself, `render` the chat format, `files` what lies on disk.
"""

from nanochat_jax.tokenizer.bpe import SPECIAL_TOKENS, SPLIT_PATTERN, Tokenizer
from nanochat_jax.tokenizer.chat_format import ConversationError, check_conversation

__all__ = [
    "SPECIAL_TOKENS",
    "SPLIT_PATTERN",
    "ConversationError",
    "Tokenizer",
    "check_conversation",
]
