"""`convert import|export` on folders of nanochat's: what goes through, what is refused."""

import dataclasses
import hashlib
import json
import resource
import shutil

import numpy as np
import pytest

from nanochat_jax import interop
from nanochat_jax.checkpoint import load_model, store
from nanochat_jax.config.convert import Export
from nanochat_jax.interop import eras, nanochat, torchfile
from scripts import convert
from tests.interop.nanochat_files import (
    folder_of,
    meta_of,
    several_steps,
    state_of,
    take,
    tokenizer_of,
)


def nothing_written(base) -> bool:
    return not base.exists() or not [p for p in base.rglob("*") if p.is_file()]


@pytest.mark.parametrize("era", eras.ERAS)
def test_a_model_of_any_era_comes_in_and_goes_out_to_the_byte(era, base, tmp_path):
    state, hint = state_of(era), {"eval_tokens": 41_943_040} if era == "C20" else {}
    path, lines = take(folder_of(tmp_path / "theirs", state, meta_of(era, **hint)))
    assert f"era {era} " in lines[0]
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
    with pytest.raises(ValueError, match="--as"):
        take(theirs)


def test_the_tag_to_read_and_the_name_it_gets_are_two_flags(theirs, base, tmp_path):
    several_tags(theirs)
    assert take(theirs, model_tag="d12", as_name="mine")[0].parent.name == "mine"
    with pytest.raises(ValueError, match="type --as d12"):
        take(theirs / "base_checkpoints/d3", model_tag="d12")
    for wrong in ("a/b", "..", ".hidden"):
        with pytest.raises(ValueError, match="expected the name of a folder"):
            take(theirs, model_tag="d3", as_name=wrong)
    out = Export(dir=str(tmp_path / "out"), source="base", model_tag="mine", as_name="d3")
    interop.export_model(out)
    assert (tmp_path / "out/base_checkpoints/d3/model_000007.pt").exists()
    with pytest.raises(ValueError, match="has none; name the folder"):
        interop.export_model(dataclasses.replace(out, format="huggingface"))


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


def keys_that_are_numbers(folder):
    torchfile.save(folder / "model_000007.pt", {0: np.ones(2), "step": 3})


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
    keys_that_are_numbers: "no named tensor under 'step', 0", unknown_key: "unknown extra",
    wrong_vocabulary: "another model", no_tokenizer: "--tokenizer",
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


def test_the_program_says_what_comes_next_and_exports_what_it_imported(
    theirs, base, tmp_path, capsys
):
    assert convert.main(["import", "--dir", str(theirs)]) == 0
    assert "next: python -m scripts.chat_cli -i base -g d3" in capsys.readouterr().out
    out = tmp_path / "out"
    assert convert.main(["export", "--source", "base", "--dir", str(out)]) == 0
    assert f"exported to {out / 'base_checkpoints' / 'd3'}" in capsys.readouterr().out


def test_the_program_prints_one_message_and_ends_with_2(tmp_path, base, capsys):
    with pytest.raises(SystemExit) as end:
        convert.main(["import", "--dir", str(tmp_path)])
    assert end.value.code == 2
    assert "no nanochat checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "tag"), [("d34-model", "d34-model"), ("published", "d3")])
def test_a_published_folder_of_one_model_comes_in_and_is_found(name, tag, theirs, base, tmp_path):
    flat = tmp_path / name
    shutil.copytree(theirs / "base_checkpoints/d3", flat)
    for file in (theirs / "tokenizer").iterdir():
        shutil.copy(file, flat)
    with pytest.raises(ValueError, match="--source"):
        take(flat)
    path, _ = take(flat, source="sft")
    assert path.parent == base / "chatsft_checkpoints" / tag
    assert load_model("sft")[2]["step"] == int(path.name)


def test_the_probe_takes_the_softcap_of_least_loss(base, tmp_path):
    state = state_of("C")
    theirs = folder_of(tmp_path / "theirs", state, meta_of("C"))
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran home. " * 20)
    path, lines = take(theirs, probe=str(text))
    scored = [line for line in lines if "bits per byte  " in line]
    names = [line.split("  ")[1] for line in scored]
    assert sorted(names) == ["as read", "softcap 20"]
    bpbs = [float(line.split()[0]) for line in scored]
    assert bpbs == sorted(bpbs) and f"{names[0]} is taken" in "\n".join(lines)
    taken = store.find(path).meta["model_config"]["logit_softcap"]
    assert taken == {"as read": 15.0, "softcap 20": 20.0}[names[0]]


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


def test_a_softcap_that_is_none_is_refused(theirs, base):
    with pytest.raises(ValueError, match="--softcap is -1"):
        take(theirs, softcap=-1.0)
    assert nothing_written(base)


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
    path, _ = take(tmp_path / "hf", format="huggingface", source="sft", as_name="again")
    meta = json.loads((path / "meta.json").read_text())
    own = store.find(base / "base_checkpoints/d3").meta["model_config"]
    assert dataclasses.asdict(load_model("sft", "again", base=base)[0].cfg) == own
    assert meta["imported"]["format"] == "huggingface"
