"""`convert import|export|compare` on folders of nanochat's: what goes through, what is refused."""

import dataclasses
import hashlib
import json
import resource
import shutil

import numpy as np
import pytest

from nanochat_jax import interop
from nanochat_jax.checkpoint import load_model, store
from nanochat_jax.config.convert import Compare, Export, Import
from nanochat_jax.interop import eras, nanochat, optim_files, torchfile
from nanochat_jax.interop.names import from_nanochat
from scripts import convert
from tests.interop.nanochat_files import folder_of, meta_of, state_of, tokenizer_of


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Our base directory, empty."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def theirs(tmp_path):
    """A base directory of nanochat's with one classic model."""
    return folder_of(tmp_path / "theirs", state_of("A"), meta_of("A"))


def take(theirs, **given):
    return interop.import_model(Import(dir=str(theirs), **given))


def nothing_written(base) -> bool:
    return not base.exists() or not [p for p in base.rglob("*") if p.is_file()]


@pytest.mark.parametrize("era", eras.ERAS)
def test_a_model_of_any_era_comes_in_and_goes_out_to_the_byte(era, base, tmp_path):
    state = state_of(era)
    path, lines = take(folder_of(tmp_path / "theirs", state, meta_of(era)))
    assert f"era {era}" in lines[0] or era == "C20"
    interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    again = torchfile.load(tmp_path / "out/base_checkpoints/d3/model_000007.pt")
    assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in state.items()}
    assert path.name == "000007"


def test_the_tokenizer_lies_beside_and_the_base_directorys_own_is_kept(theirs, base):
    mine = tokenizer_of(310)
    mine.save(base / "tokenizer")
    path, _ = take(theirs)
    assert (path.parent / "tokenizer" / "tokenizer.json").exists()
    model, tokenizer, _ = load_model("base", base=base)
    assert tokenizer.get_vocab_size() == 300 == model.cfg.vocab_size
    assert type(mine).load(base / "tokenizer").hash == mine.hash


def test_without_a_tokenizer_the_base_directory_gets_one(theirs, base):
    take(theirs)
    assert (base / "tokenizer" / "tokenizer.json").exists()


def test_the_same_step_twice_is_refused(theirs, base):
    take(theirs)
    with pytest.raises(ValueError, match="--model-tag"):
        take(theirs)


def several_steps(theirs):
    for kind, end in (("model", "pt"), ("meta", "json")):
        folder = theirs / "base_checkpoints/d3"
        shutil.copy(folder / f"{kind}_000007.{end}", folder / f"{kind}_000009.{end}")


def several_tags(theirs):
    shutil.copytree(theirs / "base_checkpoints/d3", theirs / "base_checkpoints/d12")


def several_stages(theirs):
    shutil.copytree(theirs / "base_checkpoints", theirs / "chatsft_checkpoints")


@pytest.mark.parametrize(
    "make, flag, choice",
    [(several_steps, "--step", dict(step=9)), (several_tags, "--model-tag", dict(model_tag="d12")),
     (several_stages, "--source", dict(source="sft"))],
)  # fmt: skip
def test_where_there_are_several_the_flag_that_chooses_is_named(make, flag, choice, theirs, base):
    make(theirs)
    with pytest.raises(ValueError, match=flag):
        take(theirs)
    assert nothing_written(base)
    take(theirs, **choice)


def cut_model(folder):
    file = folder / "model_000007.pt"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def no_meta(folder):
    (folder / "meta_000007.json").unlink()


def broken_meta(folder):
    (folder / "meta_000007.json").write_text("{")


def changed_meta(folder, **model_config):
    """Changes the meta file: top entries by `top`, the model's shape by the others."""
    file = folder / "meta_000007.json"
    meta = json.loads(file.read_text())
    meta |= model_config.pop("top", {})
    meta["model_config"] |= model_config
    file.write_text(json.dumps(meta))


def odd_size(folder):
    changed_meta(folder, n_head=None)


def uneven_heads(folder):
    changed_meta(folder, n_head=5)


def more_layers(folder):
    changed_meta(folder, n_layer=4)


def odd_settings(folder):
    changed_meta(folder, top={"user_config": "depth"})


def odd_place(folder):
    changed_meta(folder, top={"dataloader_state_dict": {"pq_idx": 1}})


def unknown_key(folder):
    torchfile.save(folder / "model_000007.pt", state_of("A") | {"extra": np.ones(2)})


def wrong_vocabulary(folder):
    torchfile.save(folder / "model_000007.pt", state_of("A", vocab_size=330))


def another_tokenizer(folder):
    shutil.rmtree(folder.parent.parent / "tokenizer")
    nanochat.write_tokenizer(folder.parent.parent / "tokenizer", tokenizer_of(310))


def mixed_tokenizer(folder):
    table = tokenizer_of(310).token_bytes()
    torchfile.save(folder.parent.parent / "tokenizer/token_bytes.pt", table)


def no_tokenizer(folder):
    shutil.rmtree(folder.parent.parent / "tokenizer")


def foreign_optimizer(folder):
    torchfile.save(folder / "optim_000007.pt", {"state": {}, "param_groups": []})


def cut_optimizer(folder):
    (folder / "optim_000007.pt").write_bytes(b"PK\x03\x04 and no more")


def rank_missing(folder):
    torchfile.save(folder / "optim_000007_rank1.pt", [])


DAMAGE = {
    cut_model: "copy it again", no_meta: "meta_000007.json", broken_meta: "not JSON",
    odd_size: "n_head is None", odd_settings: "user_config is", odd_place: "--weights-only",
    more_layers: "with 4 layers: missing", uneven_heads: "of no model",
    unknown_key: "unknown extra", wrong_vocabulary: "another model", no_tokenizer: "--tokenizer",
    another_tokenizer: "310 ids", mixed_tokenizer: "does not belong", rank_missing: "ranks 1",
    foreign_optimizer: "another model's file", cut_optimizer: "optim_000007.pt",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_what_is_wrong_is_said_and_nothing_is_written(damage, theirs, base):
    damage(theirs / "base_checkpoints/d3")
    with pytest.raises((ValueError, FileNotFoundError), match=DAMAGE[damage]):
        take(theirs)
    assert nothing_written(base)


@pytest.fixture
def small_disk():
    """No file may grow beyond 40 kB: a disk that runs full in the middle of a write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_import_that_breaks_off_leaves_nothing(theirs, base, small_disk):
    with pytest.raises(Exception, match="large|full|write"):
        take(theirs)
    assert nothing_written(base)
    small_disk()
    take(theirs)


def test_an_export_that_breaks_off_leaves_nothing(theirs, base, tmp_path, request):
    take(theirs)
    lift = request.getfixturevalue("small_disk")
    out = tmp_path / "out"
    for form in ("nanochat", "huggingface"):
        with pytest.raises(Exception, match="large|full|write"):
            interop.export_model(Export(dir=str(out), source="base", format=form))
        assert not out.exists()
    lift()
    interop.export_model(Export(dir=str(out), source="base"))


def test_an_empty_folder_says_what_was_looked_for(tmp_path, base):
    with pytest.raises(FileNotFoundError, match="model_<step>.pt"):
        take(tmp_path)


def test_the_program_prints_one_message_and_ends_with_2(tmp_path, base, capsys):
    with pytest.raises(SystemExit) as end:
        convert.main(["import", "--dir", str(tmp_path)])
    assert end.value.code == 2
    assert "no nanochat checkpoint" in capsys.readouterr().err


def test_a_published_folder_of_one_model_comes_in(theirs, base, tmp_path):
    flat = tmp_path / "d34-model"
    shutil.copytree(theirs / "base_checkpoints/d3", flat)
    for file in (theirs / "tokenizer").iterdir():
        shutil.copy(file, flat)
    with pytest.raises(ValueError, match="--source"):
        take(flat)
    path, _ = take(flat, source="sft")
    assert path.parent.parent.name == "chatsft_checkpoints"


def whole_optimizer(state, seed=1):
    """Random AdamW and Muon buffers in our layout, of a model with nanochat's keys."""
    rng = np.random.default_rng(seed)
    draw = lambda a: rng.normal(size=a.shape).astype(np.float32)
    params = from_nanochat(state)
    adam = {k: v for k, v in params.items() if not k.startswith("h_")}
    muon = {k: v for k, v in params.items() if k.startswith("h_")}
    tree = lambda t: {k: tree(v) if isinstance(v, dict) else draw(v) for k, v in t.items()}
    return {
        "step": np.int32(7),
        "adam": {"exp_avg": tree(adam), "exp_avg_sq": tree(adam)},
        "muon": {"momentum_buffer": tree(muon)},
    }


RATES = optim_files.GroupNumbers(
    lambda key: dict(lr=1.0, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, initial_lr=1.0),
    dict(lr=0.02, momentum=0.95, ns_steps=5, initial_lr=0.02),
)


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("layout", ["pair", "single"])
@pytest.mark.parametrize("era", ["A", "B", "C", "E"])
def test_an_optimizer_file_is_read_as_it_was_written(era, layout):
    state = state_of(era)
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    assert equal(optim_files.read([optim_files.write(whole, shapes, layout, RATES)], shapes), whole)


def split_single(file, ranks):
    """What each of several ranks would have saved: slices of tables, shares of stacks."""
    for rank in range(ranks):
        part = {"param_groups": file["param_groups"], "state": {}}
        for index, buffers in file["state"].items():
            part["state"][index] = dict(buffers)
            for name, value in buffers.items():
                if isinstance(value, np.ndarray) and value.ndim == 3:
                    share = -(-len(value) // ranks)
                    padded = np.pad(value, ((0, share * ranks - len(value)), (0, 0), (0, 0)))
                    part["state"][index][name] = padded[rank * share : (rank + 1) * share]
                elif isinstance(value, np.ndarray) and value.size >= 1024:
                    part["state"][index][name] = np.split(value, ranks)[rank]
        yield part


def test_the_files_of_several_ranks_are_put_together():
    state = state_of("E")
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    file = optim_files.write(whole, shapes, "single", RATES)
    parts = list(split_single(file, 4))
    assert equal(optim_files.read(parts, shapes), whole)
    with pytest.raises(optim_files.Incomplete):
        optim_files.read(parts[:2], shapes)


def test_muons_of_several_ranks_each_hold_some_matrices():
    state = state_of("A")
    shapes = {k: v.shape for k, v in state.items()}
    whole = whole_optimizer(state)
    adam, muon = optim_files.write(whole, shapes, "pair", RATES)
    parts = []
    for rank in range(2):
        tables = {
            i: {k: v if v.ndim == 0 else np.split(v, 2)[rank] for k, v in s.items()}
            for i, s in adam["state"].items()
        }
        mine = {i: s for i, s in muon["state"].items() if i % 2 == rank}
        parts.append([{**adam, "state": tables}, {**muon, "state": mine}])
    assert equal(optim_files.read(parts, shapes), whole)


def test_rank_0s_file_alone_is_left_with_a_warning(theirs, base, caplog):
    state = state_of("A")
    shapes = {k: v.shape for k, v in state.items()}
    adam, muon = optim_files.write(whole_optimizer(state), shapes, "pair", RATES)
    for buffers in adam["state"].values():
        buffers |= {k: v[:150] for k, v in buffers.items() if v.ndim}
    folder = theirs / "base_checkpoints/d3"
    torchfile.save(folder / "optim_000007.pt", [adam, muon])
    path, lines = take(theirs)
    assert not store.find(path).has_optimizer
    assert "rank 0's part alone" in caplog.text and "without the optimizer's state" in lines[1]


def test_the_probe_tells_the_softcap_that_fits(base, tmp_path):
    state = state_of("C")
    theirs = folder_of(tmp_path / "theirs", state, meta_of("C"))
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran home. " * 20)
    _, lines = take(theirs, probe=str(text))
    scored = [line for line in lines if "bits per byte  " in line]
    assert len(scored) == 2 and any("margin" in line for line in lines)
    bpbs = [float(line.split()[0]) for line in scored]
    assert bpbs == sorted(bpbs)


def test_a_given_softcap_is_taken(base, tmp_path):
    path, _ = take(folder_of(tmp_path / "theirs", state_of("C"), meta_of("C")), softcap=20.0)
    assert store.find(path).meta["model_config"]["logit_softcap"] == 20.0


def changed_config(path, **changes):
    """Changes the model's constants in a checkpoint of ours, and its digests with them."""
    meta = json.loads((path / "meta.json").read_text())
    meta["model_config"] |= changes
    (path / "meta.json").write_text(json.dumps(meta))
    digests = json.loads((path / store.MANIFEST).read_text())
    whole = (path / "meta.json").read_bytes()
    digests["meta.json"] = (len(whole), hashlib.sha256(whole).hexdigest())
    (path / store.MANIFEST).write_text(json.dumps(digests))


def test_a_model_that_no_nanochat_computes_is_not_given_to_it(theirs, base, tmp_path):
    path, _ = take(theirs)
    changed_config(path, window_pattern="SL", short_window="half")
    with pytest.raises(ValueError, match="has not attention windows"):
        interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    assert not (tmp_path / "out").exists()


def test_an_export_says_whose_it_is_and_what_is_rounded_otherwise(theirs, base, tmp_path, caplog):
    path, _ = take(theirs)
    changed_config(path, rope_table_dtype="float32")
    _, lines = interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    assert "read by nanochat of October 2025 to 11 January 2026" in lines
    assert "rope_table_dtype" in caplog.text


def test_compare_finds_equal_models_equal_in_every_format(theirs, base, tmp_path):
    take(theirs)
    interop.export_model(Export(dir=str(tmp_path / "hf"), source="base", format="huggingface"))
    for other in (theirs, tmp_path / "hf"):
        text = "\n".join(interop.compare(Compare(a="base", b=str(other), prompt="the cat")))
        assert "20 of 20 equal to the bit" in text
        assert "logits: max 0.000e+00" in text


def test_compare_names_the_parameter_and_the_layer_that_differ(theirs, base, tmp_path):
    take(theirs)
    state = state_of("A")
    state["transformer.h.1.mlp.c_fc.weight"] += 0.01
    other = folder_of(tmp_path / "other", state, meta_of("A"))
    ids = tmp_path / "ids.json"
    ids.write_text("[291, 5, 6, 7]")
    lines = interop.compare(Compare(a="base", b=str(other), ids=str(ids)))
    assert any("h_1/mlp/c_fc/kernel: max 1.0" in line for line in lines)
    layers = {line.split(":")[0].strip(): line for line in lines if line.startswith("  layer")}
    assert "max 0.000e+00" in layers["layer 0"] and "max 0.000e+00" not in layers["layer 1"]


def test_compare_takes_a_models_file_and_a_folder_that_tells_no_stage(theirs, base, tmp_path):
    take(theirs)
    several_steps(theirs)
    flat = tmp_path / "published"
    shutil.copytree(theirs / "base_checkpoints/d3", flat)
    with pytest.raises(ValueError, match="name the file"):
        interop.compare(Compare(a="base", b=str(flat), prompt="the cat"))
    text = interop.compare(Compare(a="base", b=str(flat / "model_000009.pt"), prompt="the cat"))
    assert "parameters: 20 of 20 equal to the bit" in text


def test_compare_says_which_file_of_ids_is_missing(theirs, base, tmp_path):
    take(theirs)
    with pytest.raises(FileNotFoundError, match="--ids"):
        interop.compare(Compare(a="base", b=str(theirs), ids=str(tmp_path / "none.json")))


def test_a_softcap_that_is_none_is_refused(theirs, base):
    with pytest.raises(ValueError, match="--softcap is -1"):
        take(theirs, softcap=-1.0)
    assert nothing_written(base)


def test_compare_refuses_ids_outside_the_vocabulary(theirs, base, tmp_path):
    take(theirs)
    ids = tmp_path / "ids.txt"
    ids.write_text("1 2 300")
    with pytest.raises(ValueError, match="0 to 299"):
        interop.compare(Compare(a="base", b=str(theirs), ids=str(ids)))


def test_an_export_keeps_what_is_there(theirs, base, tmp_path):
    take(theirs)
    command = Export(dir=str(tmp_path / "out"), source="base")
    interop.export_model(command)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="another --dir"):
        interop.export_model(command)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_a_folder_of_transformers_comes_in(theirs, base, tmp_path):
    take(theirs)
    interop.export_model(Export(dir=str(tmp_path / "hf"), source="base", format="huggingface"))
    path, _ = take(tmp_path / "hf", format="huggingface", source="sft", model_tag="again")
    meta = json.loads((path / "meta.json").read_text())
    own = store.find(base / "base_checkpoints/d3").meta["model_config"]
    assert dataclasses.asdict(load_model("sft", "again", base=base)[0].cfg) == own
    assert meta["imported"]["format"] == "huggingface"
