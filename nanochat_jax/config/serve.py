"""The flags of `scripts.chat_cli` and `scripts.chat_web`, named as nanochat's."""

import dataclasses
from typing import Annotated

from nanochat_jax.config.decoding import ADJUSTMENTS
from nanochat_jax.config.program import Program, Source, also

# What a number may be: beyond it there is nothing that a model or a socket could do.
RANGES = {
    "temperature": (0.0, 2.0), "top_k": (-1, 1_000_000), "top_p": (0.0, 1.0),
    "max_tokens": (-1, 1_000_000), "port": (0, 65535), "slots": (0, 4096),
    "queue": (0, 1_000_000), "rate_limit": (0, 1_000_000), "notice": (0, 3600), "drain": (0, 86400),
    **{name: (each.low, each.high) for name, each in ADJUSTMENTS.items()},
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Talk(Program):
    """What both programs know."""

    source: Annotated[Source, also("-i")] = "sft"  # the stage whose model answers
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    # These defaults, and those of temperature and max_tokens, are the original's two programs'.
    top_k: Annotated[int, also("-k")] = 50  # sample among the k likeliest tokens; 0, -1: all
    top_p: float = 1.0
    """sample among the likeliest tokens that hold this much probability; 0: the likeliest alone"""
    min_p: float = 0.0
    """sample among the tokens that are at least this share as likely as the likeliest; 0: all"""
    repetition_penalty: float = 1.0
    """against loops, 1.1 to 1.3: divides the logits of tokens of the chat (multiplies negative
    ones); 1: off"""
    presence_penalty: float = 0.0  # taken once from logits of tokens that the reply has, -2 to 2
    frequency_penalty: float = 0.0  # taken for each time that the reply has them, -2 to 2
    int8: bool = False  # matrices in 8 bits: half the memory of bfloat16, nearly the same text

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = vars(self).get(name, low)
            if not low <= value <= high:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} is {value}; give a number from {low} to {high}")
        if vars(self).get("max_tokens") == 0:
            raise ValueError("--max-tokens is 0; give 1 or more, or -1 for as many as fit")
        if "" in vars(self).get("api_key", ()):
            raise ValueError("--api-key is empty; leave it out, or give a key")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatCLI(Talk):
    """Chat in the terminal."""

    prompt: Annotated[str | None, also("-p")] = None  # answer this and leave
    system: str = ""  # system message, before the chat begins
    temperature: Annotated[float, also("-t")] = 0.6  # 0: the likeliest token; higher: more varied
    max_tokens: Annotated[int, also("-m")] = 256  # tokens of a reply; -1: as many as fit
    seed: int = -1  # replies are drawn from it; -1: from another one each time

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError('-p is empty; give a question (-p "Who are you?"), or leave it out')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatWeb(Talk):
    """Serve the chat page and the OpenAI-compatible API."""

    port: Annotated[int, also("-p")] = 8000  # port to listen on
    # The original listens on 0.0.0.0. What is not meant for a network should not be on one.
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 lets other machines in
    temperature: Annotated[float, also("-t")] = 0.8  # used where a request names none
    max_tokens: Annotated[int, also("-m")] = 512
    """tokens of a reply where a request names none; -1: as many as fit"""
    seed: int = -1
    """requests that name no seed draw theirs from this one; -1: from another one at each start"""
    num_gpus: Annotated[int, also("-n")] = 0
    """devices to serve from (as `--mesh`): the slots are spread over them; 0: one, or for a small
    model on a CPU one for each core"""
    slots: int = 0  # replies at a time; 0: 32 for each accelerator, 16 on CPUs
    queue: int = 128  # requests that may wait for a slot; more are answered 429
    model_name: str = ""  # the model's name in the API; empty: nanochat-<source>-<tag>
    api_key: tuple[str, ...] = ()
    """bearer keys that are let in, beside `$NANOCHAT_API_KEY` and those of the file; none at all:
    everybody is. Other users of the machine can see flags"""
    api_key_file: str = ""  # a file of such keys, one a line
    allowed_host: tuple[str, ...] = ()
    """names by which browsers may call the server, beside its address and localhost; `*`: any. Not
    asked for where there is a key, nor where `--host` lets other machines in, unless given"""
    forwarded_allow_ips: str = ""
    """proxies whose X-Forwarded-For is believed: addresses, networks, `*`; empty: nobody's"""
    cors_origin: tuple[str, ...] = ()  # origins whose pages may call the API; empty: only our own
    rate_limit: int = 0  # requests a minute from one address; 0: no limit
    notice: int = 0
    """seconds after SIGTERM in which requests are still taken and /health says 503 already, so that
    a balancer that asks it sends no more; Ctrl-C does not wait"""
    # Docker kills ten seconds after SIGTERM: what takes longer than this gets an error event
    # instead of being cut off.
    drain: int = 4
    """seconds that replies have to end once no more requests are taken; those that take longer get
    an error"""
