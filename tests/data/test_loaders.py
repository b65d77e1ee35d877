"""Loaders: the position is exact, the order depends on nothing but the data."""

import itertools
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat_jax.data import packing, shards
from nanochat_jax.data.batch import MicroBatch, one_pass
from nanochat_jax.data.chats import mid_loader, sft_loader
from nanochat_jax.data.loader import pretraining_loader
from nanochat_jax.tokenizer import Tokenizer

WORDS = "the cat sat on a mat while two dogs ran far away from here".split()
T = 24


def sentence(rng, most=40):
    return " ".join(rng.choices(WORDS, k=rng.randint(2, most)))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" ".join(WORDS)] * 5, 300)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("shards"), random.Random(0)
    for i, count in enumerate((70, 40)):
        shards.write_shard(folder / f"{i}.parquet", [sentence(rng) for _ in range(count)])
    return shards.list_shards(folder)


class Chats:
    """Made-up conversations; every seventh is longer than a row."""

    def __len__(self):
        return 30

    def __getitem__(self, i):
        rng = random.Random(i)
        user, most = sentence(rng, 4), 60 if i % 7 == 6 else 6
        turns = [{"role": "user", "content": user}]
        return {"messages": [*turns, {"role": "assistant", "content": sentence(rng, most)}]}


LOADERS = {
    "stream": lambda t, f, **kw: pretraining_loader(f, t, 2, T, **kw),
    "bestfit": lambda t, f, **kw: pretraining_loader(
        f, t, 2, T, kind="bestfit", buffer_size=20, tokenizer_batch=8, **kw
    ),
    "mid": lambda t, f, **kw: mid_loader(Chats(), t, 2, T, **kw),
    "padded": lambda t, f, **kw: sft_loader(Chats(), t, 2, T, bucket=8, **kw),
    "packed": lambda t, f, **kw: sft_loader(Chats(), t, 2, T, kind="bestfit", buffer_size=5, **kw),
}


def same(one, two):
    assert [*map(list, one.pieces)] == [*map(list, two.pieces)]
    for name in {*MicroBatch._fields} - {"pieces"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("prefetch", [0, 4])
def test_a_restored_position_gives_the_same_batches(name, prefetch, tokenizer, files):
    make = lambda: iter(LOADERS[name](tokenizer, files, prefetch=prefetch))
    whole = make()
    for pulls in (0, 1, 5, 17):
        for _ in range(pulls):
            next(whole)
        state = json.loads(json.dumps(whole.get_state()))
        again = make()
        again.set_state(state)
        ahead = list(itertools.islice(whole, 6))
        for expected, got in zip(ahead, itertools.islice(again, 6), strict=True):
            same(expected, got)


@pytest.mark.parametrize("name", LOADERS)
def test_prefetching_changes_nothing(name, tokenizer, files):
    make = lambda n: itertools.islice(LOADERS[name](tokenizer, files, prefetch=n), 12)
    for one, two in zip(make(0), make(3), strict=True):
        same(one, two)


@given(st.integers(1, 5000))
def test_padded_rows_have_at_most_four_widths_each_of_which_holds_its_rows(limit):
    widths = {n: packing.padded_width(n, limit) for n in range(1, limit + 1)}
    assert len({*widths.values()}) <= 4 and widths[limit] == limit
    assert all(n <= width <= limit for n, width in widths.items())
    step = packing.quarter(limit)
    assert all(width - n < step for n, width in widths.items())


def test_a_stream_drops_no_token_but_the_last_of_each_pull(tokenizer, files):
    docs = [t for g in shards.iter_documents(files) for t in g]
    bos = tokenizer.get_bos_token_id()
    stream = [i for d in docs for i in [bos, *tokenizer.encode(d)]]
    for n, batch in enumerate(itertools.islice(LOADERS["stream"](tokenizer, files), 5)):
        start = n * (2 * T + 1)
        assert batch.inputs.ravel().tolist() == stream[start : start + 2 * T]
        assert batch.targets.ravel().tolist() == stream[start + 1 : start + 2 * T + 1]


def ids_of(name, source, tokenizer, files):
    """The document or conversation that a piece names, read and tokenised anew."""
    if name in ("stream", "bestfit"):
        table = pq.ParquetFile(files[source.file]).read_row_group(source.group, columns=["text"])
        text = table.column("text")[source.doc].as_py()
        return [tokenizer.get_bos_token_id(), *tokenizer.encode(text)]
    return tokenizer.render(Chats()[source], T + 1 if name == "padded" else 2048)[0]


@pytest.mark.parametrize("name", LOADERS)
def test_the_pieces_of_a_row_tokenised_anew_are_the_row(name, tokenizer, files):
    pads = {"padded": tokenizer.encode_special("<|assistant_end|>"),
            "packed": tokenizer.get_bos_token_id()}  # fmt: skip
    loader, cut = LOADERS[name](tokenizer, files), 0
    for batch in itertools.islice(loader, 12):
        assert len(batch.pieces) == len(batch.inputs)
        for inputs, targets, pieces in zip(*batch[:2], batch.pieces, strict=True):
            ids = []
            for piece in pieces:
                document = ids_of(name, piece.source, tokenizer, files)
                assert 0 <= piece.start < piece.stop <= len(document)
                cut += len(document) != piece.stop - piece.start
                ids += document[piece.start : piece.stop]
            room = len(inputs) + 1 - len(ids)
            assert room == 0 or name in pads
            ids += [pads.get(name)] * room
            assert inputs.tolist() == ids[:-1]
            expected = [t if t >= 0 else i for t, i in zip(targets, ids[1:], strict=True)]
            assert expected == ids[1:]
    assert cut or name in pads  # rows that begin or end inside a document were among them


def test_every_best_fit_row_begins_with_a_document(tokenizer, files):
    for batch in itertools.islice(LOADERS["bestfit"](tokenizer, files), 20):
        assert (batch.inputs[:, 0] == tokenizer.get_bos_token_id()).all()


@pytest.mark.parametrize("name", ["padded", "packed"])
def test_only_the_assistants_tokens_are_targets_and_conversations_stay_whole(
    name, tokenizer, files
):
    start = tokenizer.encode_special("<|assistant_start|>")
    end = tokenizer.encode_special("<|assistant_end|>")
    for batch in itertools.islice(LOADERS[name](tokenizer, files), 10):
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
            learning = False
            for i, t in zip(inputs, targets, strict=True):
                learning = (learning or i == start) and i != end
                assert (t >= 0) <= learning
                assert t < 0 or t == end or t < 300


def test_conversations_too_long_for_a_row_end_no_run_in_silence(tokenizer, caplog):
    class Long(Chats):
        def __getitem__(self, i):
            long = {"role": "assistant", "content": "cat " * 200}
            return {"messages": [{"role": "user", "content": "hi"}, long]}

    loader = iter(sft_loader(Long(), tokenizer, 2, T, kind="bestfit", buffer_size=5, prefetch=0))
    with pytest.raises(ValueError, match="raise --max-seq-len"):
        next(loader)


def test_a_pass_ends_when_every_conversation_was_placed(tokenizer, files):
    batches = LOADERS["packed"](tokenizer, files, prefetch=0)
    until = list(itertools.takewhile(lambda b: not b.last, itertools.islice(batches, 200)))
    assert 0 < len(until) < 200
    assert [b.progress for b in until] == sorted(b.progress for b in until)


def test_packed_rows_make_as_many_passes_as_are_asked(tokenizer):
    pack = lambda epochs: sft_loader(
        Chats(), tokenizer, 2, T, kind="bestfit", buffer_size=5, epochs=epochs, prefetch=0
    )
    taken = lambda epochs: [*itertools.takewhile(lambda b: not b.last, pack(epochs))]
    one, three = taken(1), taken(3)
    assert 2.8 * len(one) < len(three) < 3.2 * len(one)
    for passes, epochs in ((one, 1), (three, 3)):
        placed = sum(len(row) for batch in passes for row in batch.pieces)
        assert placed <= 30 * epochs and passes[-1].progress == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", LOADERS)
def test_padding_counts_as_no_token(name, tokenizer, files):
    for batch in itertools.islice(LOADERS[name](tokenizer, files, prefetch=0), 8):
        if name in ("stream", "bestfit", "mid"):
            assert batch.tokens == batch.inputs.size
        else:  # what follows the last token of a row's conversations is no target, and padding
            ends = [sum(p.stop - p.start for p in row) for row in batch.pieces]
            assert batch.tokens == sum(ends) - len(ends) < batch.inputs.size
            for row, end in zip(batch.targets, ends, strict=True):
                assert (row[end - 1 :] == -1).all()


@pytest.mark.parametrize("name", ["stream", "bestfit", "mid", "padded", "packed"])
def test_one_pass_ends_where_the_data_begin_again(name, tokenizer, files):
    batches = list(one_pass(LOADERS[name](tokenizer, files, prefetch=0)))
    assert len(batches) > 5 and all(b.epoch == 1 and not b.last for b in batches)
    more = list(itertools.islice(LOADERS[name](tokenizer, files, prefetch=0), len(batches) + 1))
    assert more[-1].epoch > 1 or more[-1].last
    assert len(list(one_pass(LOADERS[name](tokenizer, files, prefetch=0), most=3))) == 3


def test_one_pass_over_less_than_a_micro_batch_is_that_micro_batch():
    rows = np.zeros((1, 1), np.int32)
    assert len(list(one_pass(MicroBatch(rows, rows, epoch=n, last=True) for n in (2, 3)))) == 1


@pytest.mark.parametrize("name", ["stream", "bestfit"])
def test_the_originals_position_is_taken_up_behind_its_row_group(name, tokenizer, tmp_path):
    texts = [f"{word} sat" for word in WORDS for _ in range(shards.ROW_GROUP)]
    shards.write_shard(tmp_path / "0.parquet", texts)
    loader = iter(LOADERS[name](tokenizer, [tmp_path / "0.parquet"], prefetch=0))
    loader.set_state({"pq_idx": 0, "rg_idx": 3, "epoch": 2})
    batch = next(loader)
    bos, first = tokenizer.get_bos_token_id(), tokenizer.encode(texts[4 * shards.ROW_GROUP])
    assert batch.inputs[0, : len(first) + 1].tolist() == [bos, *first] and batch.epoch == 2


@pytest.mark.parametrize(
    ("lengths", "room", "chosen"),
    [([3, 5, 5, 2], 5, (1, True)), ([9, 7, 7], 5, (1, False)), ([4], 4, (0, True))],
)
def test_the_longest_fitting_document_is_chosen_else_the_shortest(lengths, room, chosen):
    assert packing.choose(lengths, room) == chosen


def test_a_rank_without_a_row_group_is_refused(tokenizer, files):
    with pytest.raises(ValueError, match="use fewer ranks"):
        iter(pretraining_loader(files, tokenizer, 2, T, ranks=2, prefetch=0))
