"""The original's checkpoint folders: read, imported, and given back as they were."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from nanochat_jax import interop
from nanochat_jax.checkpoint import find_checkpoint, load_model
from nanochat_jax.config.convert import Export, Import
from nanochat_jax.interop import nanochat, torchfile
from nanochat_jax.serve.engine import Engine
from tests.golden.conftest import beside, files, load_json, load_npz
from tests.golden.numbers import absolute

STEPS = files("checkpoint_*/base_checkpoints*/*")
WITH_NUMBERS = files("checkpoint_*/expected.npz")


def imported(folder: Path, root: Path, monkeypatch, **given):
    """(model, tokenizer, meta) after `convert import` of a step's folder."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(root))
    own = folder.parents[1] / "tokenizer"
    tokenizer = own if own.is_dir() else beside(folder.parents[2], "checkpoint_*/tokenizer")
    command = Import(dir=str(folder), source="base", tokenizer=str(tokenizer), **given)
    interop.import_model(command)
    return load_model("base", base=root)


def described(tree):
    """The tree with arrays as the golden listing writes them."""
    if isinstance(tree, np.ndarray | np.generic):
        return f"tensor {tuple(tree.shape)} {tree.dtype}"
    if isinstance(tree, dict):
        return {str(k): described(v) for k, v in tree.items()}
    return [described(v) for v in tree] if isinstance(tree, list | tuple) else tree


def same(a, b) -> None:
    """Equal trees; arrays to the bit."""
    if isinstance(a, np.ndarray | np.generic):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, dict):
        assert list(a) == list(b)
        [same(a[k], b[k]) for k in a]
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        [same(x, y) for x, y in zip(a, b, strict=True)]
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-12)
    else:
        assert a == b and type(a) is type(b)


@pytest.mark.parametrize("path", files("checkpoint_*/structure.json"))
def test_torch_files_hold_what_the_listing_says(path):
    listing = load_json(path)
    folder = next((path.parent / "base_checkpoints").iterdir())
    optim = torchfile.load(folder / listing["optim_file"])
    assert described(optim) == listing["structure"]
    model = torchfile.load(next(folder.glob("model_*.pt")))
    if "state_dict_keys" in listing and isinstance(listing["state_dict_keys"], dict):
        assert described(dict(model)) == listing["state_dict_keys"]


@pytest.mark.parametrize("path", WITH_NUMBERS)
def test_an_imported_model_computes_their_logits(path, tmp_path, monkeypatch):
    want = load_npz(path)
    folder = next((path.parent / "base_checkpoints").iterdir())
    model, _, _ = imported(folder, tmp_path, monkeypatch)
    absolute(model(want["in.ids"]), want["out.logits"], "logits")


@pytest.mark.parametrize("path", WITH_NUMBERS)
def test_bfloat16_tables_stay_so_and_compute_their_logits(path, tmp_path, monkeypatch):
    want = load_npz(path)
    folder = next((path.parent / "base_checkpoints_bf16emb").iterdir())
    model, _, _ = imported(folder, tmp_path, monkeypatch)
    assert str(model.params["wte"]["embedding"].dtype) == "bfloat16"
    got = model(want["in.ids"][:1])
    absolute(got[0], want["out.logits_bf16emb_row0"].reshape(got.shape[1:]), "logits")


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_NUMBERS)
def test_an_imported_model_speaks_their_tokens(path, tmp_path, monkeypatch):
    want = load_npz(path)
    folder = next((path.parent / "base_checkpoints").iterdir())
    model, tokenizer, _ = imported(folder, tmp_path, monkeypatch)
    prompt, tokens = want["gen.prompt"].tolist(), want["gen.tokens"].tolist()
    engine = Engine(model, tokenizer, slots=1, max_len=2 * model.cfg.sequence_len)
    columns = engine.generate(prompt, max_tokens=len(tokens), temperature=0.0)
    assert [column[0] for column, _ in columns] == tokens


@pytest.mark.parametrize("path", STEPS)
def test_weights_come_back_to_the_byte(path, tmp_path, monkeypatch):
    imported(path, tmp_path / "base", monkeypatch)
    interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    (theirs,) = path.glob("model_*.pt")
    ours = tmp_path / "out" / "base_checkpoints" / path.name / theirs.name
    a, b = dict(torchfile.load(theirs)), dict(torchfile.load(ours))
    same(a, b)


@pytest.mark.parametrize("path", files("checkpoint_*/base_checkpoints/*"))
def test_optimizer_files_come_back_with_their_groups(path, tmp_path, monkeypatch):
    imported(path, tmp_path / "base", monkeypatch)
    interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    (theirs,) = path.glob("optim_*.pt")
    ours = tmp_path / "out" / "base_checkpoints" / path.name / theirs.name
    same(*map(torchfile.load, (theirs, ours)))


@pytest.mark.parametrize("path", files("checkpoint_*/base_checkpoints/*"))
def test_files_for_several_gpus_hold_what_the_one_held(path, tmp_path, monkeypatch):
    """Where the original of the model's time went on from them; else they are refused by name."""
    imported(path, tmp_path / "base", monkeypatch)
    export = Export(dir=str(tmp_path / "out"), source="base", ranks=2)
    if "_rank" not in next(path.glob("optim_*.pt")).name:
        with pytest.raises(ValueError, match="wrote one optimizer file"):
            interop.export_model(export)
        assert not (tmp_path / "out").exists()
        return
    interop.export_model(export)
    assert len(list((tmp_path / "out" / "base_checkpoints" / path.name).glob("optim_*.pt"))) == 2
    one = find_checkpoint("base", None, None, tmp_path / "base").optimizer()
    imported(tmp_path / "out" / "base_checkpoints" / path.name, tmp_path / "again", monkeypatch)
    again = find_checkpoint("base", None, None, tmp_path / "again").optimizer()
    jax.tree.map(np.testing.assert_array_equal, one, again)


@pytest.mark.parametrize("path", files("checkpoint_*/base_checkpoints/*"))
def test_meta_files_come_back_with_what_they_said(path, tmp_path, monkeypatch):
    imported(path, tmp_path / "base", monkeypatch)
    interop.export_model(Export(dir=str(tmp_path / "out"), source="base"))
    (theirs,) = path.glob("meta_*.json")
    ours = tmp_path / "out" / "base_checkpoints" / path.name / theirs.name
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())


@pytest.mark.parametrize("path", files("checkpoint_*/tokenizer"))
def test_tokenizer_files_come_back_with_their_rule(path, tmp_path):
    tokenizer, rule = nanochat.read_tokenizer(path)
    nanochat.write_tokenizer(tmp_path, tokenizer, rule)
    again, same_rule = nanochat.read_tokenizer(tmp_path)
    assert (again.hash, same_rule) == (tokenizer.hash, rule)
    same(torchfile.load(path / nanochat.BYTES), torchfile.load(tmp_path / nanochat.BYTES))


@pytest.mark.parametrize("path", files("checkpoint_*/base_checkpoints/*"))
def test_the_optimizer_and_the_place_in_the_data_are_taken(path, tmp_path, monkeypatch):
    _, _, meta = imported(path, tmp_path, monkeypatch)
    theirs = json.loads(next(path.glob("meta_*.json")).read_text())
    saved = find_checkpoint("base", None, None, tmp_path)
    assert saved.has_optimizer
    assert saved.loader == theirs.get("dataloader_state_dict")
    assert meta["step"] == theirs["step"] and jax.tree.leaves(saved.params())
