"""OpenAI's shapes: how replies, stream chunks, logprobs and errors are written."""

import time
import uuid
from collections.abc import Sequence

from nanochat_jax.serve.engine.requests import SampledToken
from nanochat_jax.serve.engine.text import Piece, ReplyReader, join_parts
from nanochat_jax.serve.server.service import Reply
from nanochat_jax.tokenizer import Tokenizer


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict:
    """The error object that OpenAI's clients read. Halves of surrogate pairs become `?`."""
    message = message.encode("utf-8", "replace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(prompt_tokens: int, replies: Sequence[Reply]) -> dict:
    """Token counts of a whole request; `cached_tokens` were not computed again."""
    completion = sum(len(reply.choices) for reply in replies)
    cached = sum(reply.job.cached_tokens for reply in replies[:1])
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """How a token is written; half characters as `bytes:\\x..`, so that no two look alike."""
    raw = tokenizer.id_to_bytes(token)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Ruler:
    """Tells where in a text each of its tokens begins, in characters.

    A character of several tokens is counted with the one that completes it, special tokens are
    not counted: the text does not show them.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._reader, self._end = ReplyReader(tokenizer, raw=True), 0

    def place(self, token: int) -> int:
        """Where `token`, the next one, begins."""
        begin = self._end
        self._end += sum(len(piece.text) for piece in self._reader.push(token))
        return begin


class Envelope:
    """Writes the objects of one request: same id, time and model in each."""

    def __init__(self, tokenizer: Tokenizer, model_id: str, chat: bool):
        self._tokenizer = tokenizer
        self._chat = chat
        self._kind = "chat.completion" if chat else "text_completion"
        self._head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model_id,
            "system_fingerprint": None,
        }

    def whole(self, choices: list[dict], used: dict, **more) -> dict:
        """The answer of a request that does not stream."""
        return {**self._head, "object": self._kind, "choices": choices, "usage": used, **more}

    def chunk(self, choices: list[dict], **more) -> dict:
        """One event of a stream."""
        kind = "chat.completion.chunk" if self._chat else self._kind
        return {**self._head, "object": kind, "choices": choices, **more}

    # Chat.

    def chat_choice(self, reply: Reply, logprobs: int | None) -> dict:
        """A finished reply. `parts` beside the text tells tool calls from what was said."""
        parts = join_parts(reply.pieces)
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        if any(part["type"] != "text" for part in parts):
            message["parts"] = parts
        return {
            "index": reply.index,
            "message": message,
            "logprobs": self.chat_logprobs(reply.choices, logprobs),
            "finish_reason": reply.finish_reason,
        }

    def chat_delta(self, index: int, delta: dict, finish=None, logprobs=None) -> dict:
        """A choice of a stream chunk."""
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def chat_pieces(
        self,
        reply: Reply,
        pieces: Sequence[Piece],
        tokens: Sequence[SampledToken],
        logprobs: int | None,
    ) -> list[dict]:
        """Stream choices for new pieces; the tokens' logprobs ride on the first of them."""
        deltas = [
            {"content": piece.text}
            if piece.kind == "text"
            else {"content": "", "part": {"type": piece.kind, "text": piece.text}}
            for piece in pieces
        ]
        scores = self.chat_logprobs(tokens, logprobs) if tokens else None
        if not deltas and scores is not None:
            deltas = [{"content": ""}]
        return [
            self.chat_delta(reply.index, delta, logprobs=scores if i == 0 else None)
            for i, delta in enumerate(deltas)
        ]

    def chat_logprobs(self, choices: Sequence[SampledToken], count: int | None) -> dict | None:
        """Per-token log-probabilities; `forced` marks what a tool wrote, not the model."""
        if count is None:
            return None
        return {"content": [self._scored(choice, count) for choice in choices], "refusal": None}

    def _scored(self, choice: SampledToken, count: int) -> dict:
        top = [self._token(token, logprob) for token, logprob in choice.top[:count]]
        return {
            **self._token(choice.id, choice.logprob),
            "top_logprobs": top,
            "forced": not choice.sampled,
        }

    def _token(self, token: int, logprob: float) -> dict:
        raw = list(self._tokenizer.id_to_bytes(token))
        return {"token": token_text(self._tokenizer, token), "logprob": logprob, "bytes": raw}

    # Plain completions.

    def text_choice(self, index: int, text: str, finish: str | None, logprobs: dict | None) -> dict:
        """A choice of a plain completion, whole or a chunk."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def text_logprobs(
        self, choices: Sequence[SampledToken | int], count: int | None, ruler: Ruler
    ) -> dict | None:
        """The four parallel lists of a plain completion; a bare id is a token without a score.

        Each token's own log-probability is among its alternatives, even when it is not likely.
        """
        if count is None:
            return None
        out = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for choice in choices:
            token = choice if isinstance(choice, int) else choice.id
            text = token_text(self._tokenizer, token)
            out["tokens"].append(text)
            out["text_offset"].append(ruler.place(token))
            if isinstance(choice, int):
                out["token_logprobs"].append(None)
                out["top_logprobs"].append(None)
                continue
            top = {token_text(self._tokenizer, t): lp for t, lp in choice.top[:count]}
            out["token_logprobs"].append(choice.logprob)
            out["top_logprobs"].append({**top, text: choice.logprob} if count else {})
        return out
