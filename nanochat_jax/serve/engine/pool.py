"""The slots on the device: one cache for many rows, and the compiled functions that move it.

A prompt is prefilled in a one-row scratch cache of full length (each device has one), in chunks
whose sizes are powers of two, and then copied into its row. So the prefill is compiled once per
chunk size and the decode loop once per cache length: nothing else that people do can start the
compiler. `Placement` says which device holds which row.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import jax
import numpy as np

from nanochat_jax.models import lora
from nanochat_jax.models.cache import init_cache
from nanochat_jax.models.gpt import Model
from nanochat_jax.serve.engine import decode
from nanochat_jax.serve.engine.adjust import Adjustments
from nanochat_jax.serve.engine.decode import DecodeOutput, PrefillInput, Rows, Specials
from nanochat_jax.serve.engine.kernels import choose_sample
from nanochat_jax.serve.engine.placement import ROWS, STEPS_ROWS, WHOLE, Placement
from nanochat_jax.serve.engine.rows import AdjustedRows, idle_rows
from nanochat_jax.serve.engine.weights import nbytes

PATIENCE = 256  # dispatches before the cache shrinks: a long chat may go on in the meantime
MAX_ALTERNATIVES = 20  # the most that OpenAI's API lets people ask for
# A step's attention runs over the length of the cache, real tokens or not: short chats get a short
# one. Doubling keeps the compiled lengths few.
SMALLEST_CACHE = 256
SMALLEST_CHUNK = 16
LARGEST_CHUNK = 512
# A GPU replays the loop over the steps as one graph. XLA leaves loops out of its graphs unless
# told, and waits for the host in each step. The others are what it records by itself (jax 0.11).
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,WHILE"


def sizes(low: int, high: int, factor: int) -> tuple[int, ...]:
    """low, low x factor, low x factor^2, ... below `high`, and `high`."""
    powers = (low * factor**i for i in itertools.count())
    return (*itertools.takewhile(lambda size: size < high, powers), high)


def smallest_fit(sizes: Sequence[int], need: int) -> int:
    """The smallest of the ascending `sizes` that holds `need`, or the largest."""
    return next((size for size in sizes if size >= need), sizes[-1])


def loop_options() -> dict[str, str]:
    """Options of XLA for the decode loop on this backend."""
    gpu = jax.default_backend() == "gpu"
    return {"xla_gpu_enable_command_buffer": RECORDED} if gpu else {}


class Pool:
    """`slots` cache rows of up to `max_len` tokens and the compiled functions over them.

    With a mesh the rows are spread over its devices. `compilations` counts what was traced so far;
    after `warm_up`, of which the share `warm` is done, it stays as it is.
    """

    def __init__(
        self, model: Model, specials: Specials, slots: int, max_len: int, steps: int, mesh=None
    ):
        self._placement = Placement(mesh, slots)
        self.slots, self.steps = slots, steps
        self.adapters = lora.beside(model.params)
        self.lengths = sizes(min(SMALLEST_CACHE, max_len), max_len, 2)
        # A CPU's time grows with the rows: few replies get a loop over few rows. An accelerator
        # waits for its memory anyway, and in bfloat16 a product's shape shows in its last bits.
        on_cpu = jax.default_backend() == "cpu"
        n = self._placement.devices
        self.row_counts = tuple(n * c for c in sizes(2, slots // n, 4)) if on_cpu else (slots,)
        self.chunks = sizes(SMALLEST_CHUNK, min(LARGEST_CHUNK, max(max_len, 17)), 2)
        self.compilations, self.warm = 0, 0.0
        self.new_adjusted_rows = partial(AdjustedRows, slots, max_len, model.cfg.vocab_size)
        self.alternatives = min(MAX_ALTERNATIVES, model.cfg.vocab_size)
        make = lambda *size: partial(init_cache, model.cfg, *size, model.gpt.dtype)
        self._new_cache = self._placement.maker(make(slots, self.lengths[0]))
        self._new_scratch = self._placement.maker(make(n, max_len))
        self.release()
        self.set_params(model.params)
        # Asked now: later the array may be in the middle of being replaced by another thread.
        self.devices = sorted(str(device) for device in self.cache.length_B.devices())
        self._build(model.gpt.apply, specials)

    def _jit(self, function: Callable, **options) -> Callable:
        def traced(*args):
            # Python runs this only while JAX traces: a call that was compiled before skips it.
            self.compilations += 1
            return function(*args)

        return jax.jit(traced, **options)

    def _build(self, apply: decode.Apply, specials: Specials) -> None:
        def prefill(N):
            run = partial(decode.prefill_chunk, apply, N)
            return place(run, (WHOLE, ROWS, ROWS), ROWS)

        def steps(N, *asked):
            run = partial(decode.decode_chunk, apply, choose_sample(), specials, N)
            return place(run, (WHOLE, ROWS, ROWS, WHOLE, *asked), (ROWS, STEPS_ROWS))

        # What is donated is written in place: no dispatch allocates a second cache.
        place, counts = self._placement.map, (0, self.alternatives)
        move = lambda function: self._jit(place(function, ROWS, ROWS), donate_argnums=0)
        self._insert, self._extract = move(decode.insert_row), move(decode.extract_row)
        resize = lambda n: place(partial(decode.resize, length=n), ROWS, ROWS)
        self._resize = {n: self._jit(resize(n)) for n in self.lengths}
        self._prefill = {N: self._jit(prefill(N), donate_argnums=1) for N in counts}
        options = dict(donate_argnums=1, compiler_options=loop_options())
        # Two loops: most replies need the first. The second scores alternatives and adjusts logits,
        # both, since a third and fourth would make every start compile for so much longer.
        self._decode = self._jit(steps(0), **options)
        self._decode_all = self._jit(steps(self.alternatives, ROWS), **options)

    def set_params(self, params: dict) -> None:
        """Puts the weights on every device, and empty rows if they were released."""
        self.params, self.weight_bytes = self._placement.replicate(params), nbytes(params)
        if self.cache is None:
            self.cache, self._scratch = self._new_cache(), self._new_scratch()

    def release(self) -> None:
        """Gives weights and rows back; what was compiled stays. `set_params` makes them anew."""
        self.params = self.cache = self._scratch = None
        self._roomy = 0  # calls of `fit` in a row that a shorter cache would have done for

    @property
    def cache_bytes(self) -> int:
        """Bytes of all rows just now."""
        return nbytes(self.cache)

    @property
    def length(self) -> int:
        """Tokens that a row of the cache can hold just now."""
        return self.cache.room

    def fit(self, need: int, keep: int = 0) -> bool:
        """Makes the rows hold `need` tokens; True when their length changed.

        They grow at once. The first `keep` tokens, which idle rows hold for their chats, are cut
        only when nobody has needed so long a cache for `PATIENCE` calls.
        """
        would_shrink = smallest_fit(self.lengths, need) < self.length
        self._roomy = self._roomy + 1 if would_shrink else 0
        if self._roomy < PATIENCE:
            need = max(need, min(keep, self.length))
        before, length = self.length, smallest_fit(self.lengths, need)
        self._resize_to(length)
        return length != before

    def _resize_to(self, length: int) -> None:
        if length != self.length:
            self.cache = self._resize[length](self.cache)

    def chunk_for(self, count: int) -> int:
        """The size of the chunk in which `count` tokens, or the first of them, are read."""
        return smallest_fit(self.chunks, count)

    def take(self, rows: Sequence[int]) -> None:
        """Copies rows, at most one of a device, into their devices' scratch caches."""
        self._scratch = self._extract(self._scratch, self.cache, self._placement.places(rows))

    def put(self, rows: Sequence[int]) -> None:
        """Copies scratch caches into rows, at most one of a device, if long enough for them."""
        self.cache = self._insert(self.cache, self._scratch, self._placement.places(rows))

    def prefill(
        self, prompts: Sequence[tuple[Sequence[int], int]], score: bool, adapted: Iterable[bool]
    ):  # fmt: skip
        """Feeds each device's scratch cache more of its prompt; how many tokens each read, scores.

        `prompts`: (tokens, how many were read before) of every device; `adapted`: whether adapters,
        if there are any, read with. All but the last token are
        read: it is the first that decoding feeds. Scores of what follows each token that was read,
        if asked for: (logprob, top ids, top logprobs) `[devices, T]`.
        """
        rests = [tokens[read:-1] for tokens, read in prompts]
        size = self.chunk_for(max(map(len, rests)))
        ints = lambda values: np.asarray(list(values), np.int32)
        chunk = PrefillInput(
            start_1=ints(read for _, read in prompts),
            before_1=ints(tokens[read - 1] if read else 0 for tokens, read in prompts),
            count_1=ints(min(len(rest), size) for rest in rests),
            tokens_1T=_padded(rests, size),
            targets_1T=_padded([tokens[read + 1 :] for tokens, read in prompts], size),
            adapted_1=np.asarray([*adapted], np.float32) if self.adapters else None,
        )
        run = self._prefill[self.alternatives if score else 0]
        self._scratch, found = run(self.params, self._scratch, chunk)
        return chunk.count_1.tolist(), jax.device_get(found)

    def rows_for(self, count: int) -> int:
        """How many rows a dispatch over the first `count` rows computes."""
        return smallest_fit(self.row_counts, count)

    def start(
        self, rows: Rows, steps: int, count: int, asked: Adjustments | None = None
    ) -> DecodeOutput:
        """Starts a dispatch of at most `steps` tokens for each of the first `count` rows.

        With `asked` it adjusts logits, and finds alternatives to each token.
        """
        arrange = partial(self._placement.arrange, count=self.rows_for(count))
        run, more = (self._decode, ()) if asked is None else (self._decode_all, (arrange(asked),))
        self.cache, output = run(self.params, self.cache, arrange(rows), np.int32(steps), *more)
        return output

    def read(self, output: DecodeOutput) -> DecodeOutput:
        """What a started dispatch chose, as numpy arrays, which may hold only the rows it ran."""
        return self._placement.restore(jax.device_get(output))

    def warm_up(self, scores: bool = True, adjusts: bool = False) -> None:
        """Compiles everything that serving can need; without `scores` what replies that all adjust
        logits need, or none. Leaves the pool as it was, but empty."""
        # Twice in any case: what comes from another program than at first may be compiled anew.
        runs = list(self._everything((False, scores), (adjusts, scores or adjusts)))
        for done, run in enumerate(runs, 1):
            run()
            self.warm = done / len(runs)

    def _everything(self, scored: Sequence[bool], asked: Sequence[bool]) -> Iterator[Callable]:
        """Calls that, made in this order, run every function in every shape it can get; `scored`:
        prompts with the scores that requests may ask for, and without; `asked`: replies, too."""
        for size, score in itertools.product(self.chunks, scored):
            n = len(self.devices)
            yield partial(self.prefill, [([0] * (size + 1), 0)] * n, score, [True] * n)
        idle = idle_rows(self.slots, self.steps, self.adapters)
        nothing = self.new_adjusted_rows()
        decode = lambda count, asks: self.read(
            self.start(idle, self.steps, count, nothing.sent((), self.length) if asks else None)
        )
        for length in self.lengths:
            yield partial(self._resize_to, length)
            yield partial(self.put, [0])
            yield partial(self.take, [0])
            for count, asks in itertools.product(self.row_counts, asked):
                yield partial(decode, count, asks)
            for other in self.lengths:
                yield partial(self._resize_to, other)
                yield partial(self._resize_to, length)
        yield partial(self._resize_to, self.lengths[0])


def _padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """The rows as int32 [rows, width], cut or filled up with zeros."""
    out = np.zeros((len(rows), width), np.int32)
    for filled, row in zip(out, rows, strict=True):
        filled[: len(row)] = row[:width]
    return out
