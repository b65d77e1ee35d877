"""What trace names is what the run was given, read and tokenised anew; and the data of a run."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from nanochat_jax import pipeline, tasks
from nanochat_jax.checkpoint import load_tokenizer, store
from nanochat_jax.config.paths import base_data, checkpoints
from nanochat_jax.data import shards
from nanochat_jax.train import curriculum, trace
from scripts.data import main
from tests.train.tiny_chain import write_base

T, ROWS = 32, 4  # tokens of a row, rows of a step: two micro-batches
REST = """\
num_iterations = 7
save_every = 3
[mid]
num_iterations = 5
save_every = 2
mixture = ["conversations", "SimpleSpelling:20"]
[sft]
num_iterations = 4
save_every = 3
target_examples_per_step = 4
eval_metrics_every = -1
mixture = ["conversations", "SimpleSpelling:20"]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base directory with text (three row groups a shard), chats and a tokenizer."""
    root = tmp_path_factory.mktemp("base")
    (root / "words_alpha.txt").write_text("\n".join(("river", "stone", "apple", "winter")))
    write_base(root, REST, [range(first, first + 2600) for first in (0, 3000, 6000)])
    return root


@pytest.fixture
def run(base, monkeypatch):
    """Runs a stage; gives the rows of each step as the device had them."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base))

    def program(stage, *argv):
        given, real = [], curriculum._stack
        monkeypatch.setattr(curriculum, "_stack", lambda *a: given.append(real(*a)) or given[-1])
        mesh = [] if stage == "tokenizer" else ["--mesh=1"]
        config = pipeline.configure(stage, [f"--config={base / 'c.toml'}", *mesh, *argv])
        pipeline.run(stage, config)
        monkeypatch.setattr(curriculum, "_stack", real)
        return given

    if not (base / "tokenizer").exists():
        program("tokenizer")
    return program


def tokens_of(origin, stage, base, tokenizer, limit):
    """The ids of a document or chat by what trace calls it, without the loader's code."""
    if isinstance(origin, trace.Document):
        table = pq.ParquetFile(base_data(base) / origin.shard).read_row_group(origin.group)
        text = table.column("text")[origin.doc].as_py()
        return [tokenizer.get_bos_token_id(), *tokenizer.encode(text)]
    names = ["conversations", "SimpleSpelling:20"]
    built = {t.name: t for t in tasks.build(names, base, "train", stage=stage).tasks}
    return tokenizer.render(built[origin.task][origin.row], limit)[0]


def check(stage, base, given, steps):
    """Every row of the steps is its traced pieces, tokenised anew, and padding."""
    folder = next(checkpoints(base, stage).glob("d*"))
    tokenizer = load_tokenizer(store.find(folder), base)
    limit = T + 1 if stage == "sft" else 2048
    for step in steps:
        found = trace.trace(stage, step, base)
        inputs, targets = (a.reshape(ROWS, -1) for a in (given[step].inputs, given[step].targets))
        assert len(found.rows) == ROWS
        for row in range(ROWS):
            ids = []
            for piece in found.traced(row):
                assert piece.column == len(ids)
                whole = tokens_of(piece.origin, stage, base, tokenizer, limit)
                assert tokenizer.decode(whole[piece.start : piece.stop]).startswith(piece.text)
                ids += whole[piece.start : piece.stop]
            known = inputs[row, : len(ids)].tolist()
            assert known == ids[: len(known)] and (targets[row, len(ids) :] == -1).all()
            after = targets[row, : len(ids) - 1]
            assert np.where(after < 0, ids[1:], after).tolist() == ids[1:]
    return found


@pytest.mark.parametrize("flags", [
    ["--loader-ranks=2"], ["--loader=bestfit"],
    pytest.param([], marks=pytest.mark.slow),
    pytest.param(["--loader=bestfit", "--loader-ranks=2"], marks=pytest.mark.slow),
])  # fmt: skip
def test_the_documents_that_trace_names_are_the_rows_of_the_step(run, base, flags):
    given = run("base", *flags)
    # Step 2 is read on from the start, 3 from its own checkpoint, 5 and 6 from that and from 6.
    found = check("base", base, given, (0, 2, 3, 5, 6))
    assert (found.step, found.since) == (6, 6)


@pytest.mark.slow
def test_the_conversations_that_trace_names_are_the_rows_of_mid_and_sft(run, base):
    run("base")
    check("mid", base, run("mid"), (0, 1, 2, 4))
    check("sft", base, run("sft"), (0, 2, 3))
    packed = ["--packing=bestfit", f"--total-batch-size={ROWS * T}"]
    check("sft", base, run("sft", *packed), (0, 2, 3))


def test_trace_prints_what_it_finds_and_says_which_steps_there_are(run, base, capsys):
    run("base")
    capsys.readouterr()
    assert main(["trace", "--stage", "base", "--step", "4", "--row", "1"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "step 4 of base: 4 rows, read on from step 3"
    assert lines[0].startswith("row 1 column 0: shard_00000.parquet (sha256:")
    assert " group 0 document " in lines[0] and "The number" in " ".join(lines)
    for wrong, said in ((["--step", "7"], "has steps 0 to 6"), (["--step", "4", "--row", "4"],
                        "rows 0 to 3")):  # fmt: skip
        with pytest.raises(SystemExit):
            main(["trace", *wrong])
        assert said in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_shards_and_refuses_one_that_has_changed(run, base):
    whole = run("base")
    again = lambda: run("base", "--resume-from-step=3")
    later = base_data(base) / "shard_00000b.parquet"
    shards.write_shard(later, ["Something else entirely."] * 1100)
    resumed = again()
    later.unlink()
    for before, after in zip(whole[3:], resumed, strict=True):
        np.testing.assert_array_equal(before.inputs, after.inputs)
    first = base_data(base) / shards.shard_name(0)
    raw = first.read_bytes()
    try:
        shards.write_shard(first, ["Another text."] * 2600)
        with pytest.raises(ValueError, match="shard_00000.parquet is not what it was"):
            again()
        with pytest.raises(ValueError, match="shard_00000.parquet"):
            trace.trace("base", 2, base)
    finally:
        first.write_bytes(raw)
    again()


@pytest.mark.slow
def test_a_mixture_that_has_another_number_of_rows_is_refused(run, base):
    run("base")
    run("mid")
    with pytest.raises(ValueError, match="the mixture has changed .* SimpleSpelling 20; put"):
        run("mid", "--resume-from-step=2", "--mixture", "conversations")
