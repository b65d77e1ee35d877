"""The flags of `scripts.convert import|export|compare|merge|push`."""

import dataclasses
from typing import Annotated, Literal

import tyro

from nanochat_jax.config.program import Source, also

Format = Literal["nanochat", "huggingface"]
ExportFormat = Literal["nanochat", "huggingface", "apertus", "gguf"]
Quant = Literal["f32", "bf16", "q8_0", "q4_k_m"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """Bring a model of nanochat or of transformers into the base directory.

    Nothing of it is run, and no torch is needed. What is there already is never overwritten.
    """

    dir: str  # nanochat's base directory, a folder with model_<step>.pt, or one of transformers
    format: Format = "nanochat"  # whose files they are
    source: Annotated[Literal["", Source], also("-i")] = ""  # stage, where the folders do not tell
    model_tag: Annotated[str, also("-g")] = ""  # tag to read, where there are several
    as_name: Annotated[str, also("--as")] = ""  # the tag it gets here; empty: the one it has
    step: Annotated[int, also("-s")] = -1  # step to read; may be left out where there is one
    tokenizer: str = ""  # folder of the tokenizer, where it is not beside the model
    softcap: float = 0.0  # logit softcap where keys cannot tell (15 or 20); 0: as the files say
    probe: str = ""  # text, or a file of it, to score candidates that keys cannot tell apart
    weights_only: bool = False  # leave the optimizer and the place in the data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model so that nanochat, transformers, or llama.cpp and its kin load it.

    Models of the classic recipe can be written in every format, of the portable one with nothing
    lost; of the current one in nanochat's alone.
    """

    dir: str  # folder to write: a base directory of nanochat's layout, or one of transformers
    format: ExportFormat = "nanochat"
    """nanochat (model, meta, optimizer, tokenizer), huggingface (transformers' NanoChat), apertus
    (a folder that transformers, vLLM, SGLang and MLX load), gguf (llama.cpp, ollama, LM Studio)"""
    quant: Quant = "bf16"
    """gguf: type of the matrices; q4_k_m where llama-cpp-python is at hand"""
    source: Annotated[Source, also("-i")] = "sft"  # stage of the model
    model_tag: Annotated[str, also("-g")] = ""  # its tag; empty: the deepest
    as_name: Annotated[str, also("--as")] = ""  # nanochat, gguf: the name it gets there
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    optimizer: bool = True  # nanochat: write the optimizer's state too, where the checkpoint has it
    ranks: int = 1  # nanochat, current recipe: GPUs that go on, each with a file of its own
    lossy: bool = False  # all but nanochat: write even what that format cannot express, without it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare two checkpoints of any formats: weights, each layer's output, logits.

    A checkpoint is a stage (base, mid, sft, rl), a folder of ours, of nanochat, or of transformers.
    """

    a: tyro.conf.Positional[str]  # one checkpoint
    b: tyro.conf.Positional[str]  # the other
    prompt: Annotated[str, also("-p")] = "The capital of France is"  # text to run both on
    ids: str = ""  # file of token ids (JSON list, or numbers and blanks) to run both on instead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Merge:
    """Make an ordinary checkpoint of one that holds adapters (trained with --lora-rank).

    Everything takes a checkpoint of adapters as it is, as long as its base lies here: merge one to
    keep it without that, or to go on with all weights.
    """

    source: Annotated[Source, also("-i")] = "sft"  # stage of the model
    model_tag: Annotated[str, also("-g")] = ""  # its tag; empty: the deepest
    as_name: Annotated[str, also("--as")] = ""  # the tag it gets; empty: merged- and its own
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push:
    """Put a model on the Hugging Face hub: what export writes, and a model card.

    Nothing is sent without --yes: all is written into a folder first, to be read.
    """

    repo: str  # USER/NAME there, of yours or of an organization
    format: tuple[ExportFormat, ...] = ("apertus", "huggingface", "gguf")
    """what to put there: any of those that export knows, one or several; without huggingface or
    nanochat this program cannot take the model back"""
    quant: Quant = "bf16"  # gguf: type of the matrices, as in export
    source: Annotated[Source, also("-i")] = "sft"  # stage of the model
    model_tag: Annotated[str, also("-g")] = ""  # its tag; empty: the deepest
    step: Annotated[int, also("-s")] = -1  # its step; -1: the last
    lossy: bool = False  # all but nanochat: write even what a format cannot express, without it
    license: str = "mit"  # of the weights, by the hub's name for it
    space: bool = False  # a Space too: a page to chat with the GGUF file, run by llama.cpp there
    private: bool = False  # only you, and who you let in, see it
    dir: str = ""  # folder to write first; empty: one below the base directory, by the repo's name
    yes: bool = False  # send it


COMMANDS: dict[str, type] = {
    "import": Import, "export": Export, "compare": Compare, "merge": Merge, "push": Push,
}  # fmt: skip
