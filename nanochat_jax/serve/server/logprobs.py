"""Log-probabilities as OpenAI's two endpoints write them: objects for chats, lists for text."""

from collections.abc import Sequence

from nanochat_jax.serve.engine.requests import ScoredToken
from nanochat_jax.serve.engine.text import ReplyReader
from nanochat_jax.serve.server import responses
from nanochat_jax.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """How a token is written; half characters as `bytes:\\x..`, so that no two look alike."""
    raw = tokenizer.id_to_bytes(token)
    # Plain completions key their alternatives by this text: two halves that were both written
    # U+FFFD would be one entry.
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[ScoredToken], top: int | None
) -> responses.ChatLogprobs | None:
    """Each token's score beside the `top` likeliest in its place; None where none are wanted."""
    if top is None:
        return None

    fields = lambda token, logprob: {
        "token": token_text(tokenizer, token),
        "logprob": logprob,
        "bytes": list(tokenizer.id_to_bytes(token)),
    }
    scored = [
        responses.ReplyLogprob(
            **fields(token.id, token.logprob),
            top_logprobs=[responses.TokenLogprob(**fields(*other)) for other in token.top[:top]],
            forced=not token.sampled,
        )
        for token in tokens
    ]
    return responses.ChatLogprobs(content=scored, refusal=None)


class TextScorer:
    """The lists of one plain completion, made chunk by chunk; it remembers where the text ends."""

    def __init__(self, tokenizer: Tokenizer, top: int | None):
        self._tokenizer, self._top = tokenizer, top
        self._reader, self._end = ReplyReader(tokenizer, raw=True), 0

    def score(self, tokens: Sequence[ScoredToken | int]) -> responses.TextLogprobs | None:
        """The four lists of the next `tokens`; a bare id is a token that has no score."""
        if self._top is None:
            return None
        ids = [token if isinstance(token, int) else token.id for token in tokens]
        return responses.TextLogprobs(
            tokens=[token_text(self._tokenizer, token) for token in ids],
            token_logprobs=[None if isinstance(t, int) else t.logprob for t in tokens],
            top_logprobs=[None if isinstance(t, int) else self._alternatives(t) for t in tokens],
            text_offset=[self._place(token) for token in ids],
        )

    def _alternatives(self, token: ScoredToken) -> dict[str, float]:
        """A token's own log-probability is among its alternatives, even when it is not likely:
        evaluations look there for whether a text is what greedy decoding would have given."""
        if not self._top:
            return {}
        top = {token_text(self._tokenizer, t): logprob for t, logprob in token.top[: self._top]}
        return {**top, token_text(self._tokenizer, token.id): token.logprob}

    def _place(self, token: int) -> int:
        """Where `token` begins, in characters.

        A character of several tokens counts with the one that completes it; special tokens do not
        count, since the text does not show them.
        """
        begins = self._end
        self._end += sum(len(piece.text) for piece in self._reader.push(token))
        return begins
