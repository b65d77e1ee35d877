"""Which vocabulary and pattern suit one's own text: tokenizers tried on a sample of it.

A larger vocabulary makes fewer tokens of a text, but each of them costs more, since the whole
vocabulary is scored at it. The size that is suggested is that at which a model of the config trains
on a byte of this text with the fewest FLOPs: larger models bear larger ones, as was found where
loss was measured (arXiv:2407.13623). Marks are taken into words where that makes tokens longer.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from nanochat_jax.config import paths
from nanochat_jax.config.gpt import GPTConfig, flops_per_token, shape_of_depth
from nanochat_jax.data import shards, writing
from nanochat_jax.tokenizer import SPLIT_PATTERNS, Tokenizer

SAMPLE_CHARACTERS = 8_000_000  # in all, from row groups that lie evenly over the shards
SAMPLE_GROUPS = 32
PIECE_CHARACTERS = 2_000
HELD_OUT = 10  # one piece in so many; fewer pieces than these tell nothing
SIZES = tuple(2**n for n in range(10, 17))
# Marks are looked at where letters have them; taken where the tokens gain.
MARKS_LOOKED_AT, MARKS_TAKEN = 0.005, 1.02
# Bytes of text from which a large model is worth its GPUs.
LARGE = 10**9
# The configs that are suggested, with their depth, aspect ratio, head width and row length.
CONFIGS = {
    "configs/cpu-text.toml": (4, 48, 96, 256),
    "configs/d20.toml": (20, 64, 128, 2048),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a sample showed: for each pattern bytes per token of held-out texts by vocabulary size,
    and the tokenizer of the largest."""

    held_out: Sequence[str]
    bytes_per_token: Mapping[str, Mapping[int, float]]
    largest: Mapping[str, Tokenizer]

    @property
    def pattern(self) -> str:
        """The pattern that is suggested."""
        best = {name: max(measured.values()) for name, measured in self.bytes_per_token.items()}
        gain = best.get("marks", 0.0) / best["nanochat"]
        return "marks" if gain >= MARKS_TAKEN else "nanochat"

    def vocab_size(self, config: str) -> int:
        """The size that is suggested for one of CONFIGS."""
        depth, aspect_ratio, head_dim, rows = CONFIGS[config]
        shape = shape_of_depth(depth, aspect_ratio, head_dim)
        cost = lambda size: flops_per_token(
            GPTConfig(sequence_len=rows, vocab_size=size, **shape)
        )  # fmt: skip
        measured = self.bytes_per_token[self.pattern]
        return min(measured, key=lambda size: cost(size) / measured[size])


def of(texts: Sequence[str]) -> Trial | None:
    """The trial of these texts; None where they are too few."""
    pieces = [text[i : i + PIECE_CHARACTERS] for text in texts
              for i in range(0, len(text), PIECE_CHARACTERS)]  # fmt: skip
    if len(pieces) < HELD_OUT:
        return None
    held_out = pieces[::HELD_OUT]
    train = [piece for i, piece in enumerate(pieces) if i % HELD_OUT]
    some = writing.marks_share("".join(held_out)) >= MARKS_LOOKED_AT
    patterns = ("nanochat", "marks") if some else ("nanochat",)
    largest = {
        name: Tokenizer.train(train, SIZES[-1], SPLIT_PATTERNS[name, 2], at_most=True)
        for name in patterns
    }
    measured = {name: _by_size(tokenizer, held_out) for name, tokenizer in largest.items()}
    return Trial(held_out, measured, largest)


def _by_size(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[int, float]:
    """Bytes per token at each size up to the first at which nothing more was to be merged."""
    # Merges come in the order of their counts: a smaller vocabulary is the beginning of a larger.
    found = {}
    for size in SIZES:
        found[size] = _per_token(tokenizer.smaller(size), texts)
        if size >= tokenizer.get_vocab_size():
            break
    return found


def _per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Bytes of a token of these texts."""
    size_B = sum(len(text.encode()) for text in texts)
    return size_B / sum(map(len, tokenizer.encode(list(texts))))


def sample(root: pathlib.Path) -> list[str]:
    """Documents from all over one's own training shards, of SAMPLE_CHARACTERS at most together."""
    places = []
    for path in _training(root):
        with shards.open_shard(path) as file:
            places += [(path, group) for group in range(file.num_row_groups)]
    chosen = places[:: -(-len(places) // SAMPLE_GROUPS)] if places else []
    found, each = [], SAMPLE_CHARACTERS // max(1, len(chosen))
    for path, group in chosen:
        with shards.open_shard(path) as file:
            found += _up_to(each, shards.read_row_group(file, path, group))
    return found


def _training(root: pathlib.Path) -> list[pathlib.Path]:
    files = shards.list_shards(paths.base_data(root))
    return files[:-1] or files  # the last validates


def _bytes(root: pathlib.Path) -> int:
    """How much text there is to train on, unpacked."""
    total = 0
    for path in _training(root):
        with shards.open_shard(path) as file:
            groups = range(file.num_row_groups)
            total += sum(file.metadata.row_group(i).total_byte_size for i in groups)
    return total


def _up_to(characters: int, texts: Sequence[str]) -> list[str]:
    """The texts cut so that together they are no longer; each is at most a tenth of that."""
    kept, longest = [], max(PIECE_CHARACTERS, characters // HELD_OUT)
    for text in texts:
        kept.append(text[: min(longest, characters)])
        characters -= len(kept[-1])
        if characters <= 0:
            break
    return kept


def told(root: pathlib.Path, machine: str) -> list[str]:
    """What there is to say of the texts of one's own, line by line; `machine`: cpu, gpu or tpu."""
    trial = of(sample(root))
    if trial is None:
        return ["too little text to say which vocabulary would suit it"]
    large = machine != "cpu" and _bytes(root) >= LARGE
    config = "configs/d20.toml" if large else "configs/cpu-text.toml"
    size = trial.vocab_size(config)
    tokenizer = trial.largest[trial.pattern].smaller(size)
    rows = [f"  {row.script:14} {row.share:6.1%} {row.bytes_per_token:6.2f}"
            for row in writing.table(trial.held_out, tokenizer)]  # fmt: skip
    head = (
        f"how {sum(map(len, trial.held_out)):,} characters of it are written, a tenth of a sample; "
        f"bytes a token with {size:,} ids:"
    )
    marks = " --pattern marks" * (trial.pattern == "marks")
    typed = f"python -m scripts.speedrun --config {config} --vocab-size {size}{marks}"
    return [head, *rows, *_sizes(trial), *_there(root, trial), *_normal(trial), f"next: {typed}"]


def _sizes(trial: Trial) -> list[str]:
    """Bytes per token by pattern and size, as a table."""
    sizes = max(trial.bytes_per_token.values(), key=len)
    lines = ["vocabulary" + " " * 12 + "".join(f"{size:>8,}" for size in sizes)]
    for name, measured in trial.bytes_per_token.items():
        figures = "".join(f"{value:8.2f}" for value in measured.values())
        lines.append(f"  --pattern {name:10}{figures}")
    return lines


def _there(root: pathlib.Path, trial: Trial) -> list[str]:
    """What the tokenizer that was trained before makes of the same text."""
    if not (paths.tokenizer(root) / "meta.json").exists():
        return []
    try:
        there = Tokenizer.load(paths.tokenizer(root))
    except (OSError, ValueError) as error:  # the texts are added all the same
        return [f"  the tokenizer that is there cannot be read: {error}"]
    per_token = _per_token(there, trial.held_out)
    return [f"  the tokenizer that is there, of {there.get_vocab_size():,} ids: {per_token:.2f}"]


def _normal(trial: Trial) -> list[str]:
    share, word = writing.not_normalised("\n".join(trial.held_out))
    if share < writing.LEAST:
        return []
    return [
        f"{share:.1%} of the words, such as {word[:20]!r}, are not in Unicode's normal form NFC. "
        "They stay as they are; a word in two forms is two words to a model (docs/your-language.md)"
    ]
