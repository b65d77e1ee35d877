"""GGUF files: what stands in them, and that llama.cpp computes what we do."""

import dataclasses
import io

import gguf
import jinja2
import numpy as np
import pytest

from nanochat_jax import interop
from nanochat_jax.config.convert import Export
from nanochat_jax.config.gpt import GPTConfig, recipe_model_defaults
from nanochat_jax.interop import apertus, gguf_file, huggingface, llama
from nanochat_jax.models.gpt import Model
from nanochat_jax.tokenizer import SPLIT_PATTERNS, Tokenizer
from tests import needs
from tests.interop.test_huggingface import random_params

SHAPE = dict(sequence_len=256, vocab_size=300, n_layer=2, n_head=2, n_kv_head=1, n_embd=64)
PORTABLE = GPTConfig(**SHAPE, **recipe_model_defaults("portable"))
TEXTS = [
    "one day, the cat sat on the mat in 1984",
    "a dog ran home and it's Привет 你好 12 34",
] * 20
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|bos|>"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, SHAPE["vocab_size"], SPLIT_PATTERNS["nanochat", 1])


@pytest.fixture(scope="module")
def marked() -> Tokenizer:
    """Whose words hold the marks at their letters."""
    texts = [*TEXTS, *["हिन्दी में, ภาษาไทย مَرْحَبًا"] * 20]
    return Tokenizer.train(texts, SHAPE["vocab_size"], SPLIT_PATTERNS["marks", 1])


def written(folder, cfg, tokenizer, quant="bf16", check=lambda path: []):
    state = huggingface.expressible(cfg, random_params(cfg, seed=1), lossy=False)
    told = gguf_file.write(folder, "mine", cfg, state, tokenizer, quant, check)
    return folder / "mine.gguf", told


def value(reader, name):
    return reader.get_field(name).contents()


@pytest.mark.parametrize("quant", ["f32", "bf16", "q8_0"])
def test_a_file_holds_the_whole_model_and_how_to_read_it(quant, tokenizer, tmp_path):
    path, _ = written(tmp_path / "out", PORTABLE, tokenizer, quant)
    reader = gguf.GGUFReader(path)
    assert value(reader, "general.architecture") == "apertus"
    assert value(reader, "apertus.block_count") == 2
    assert value(reader, "apertus.attention.head_count_kv") == 1
    assert value(reader, "apertus.rope.freq_base") == 10000.0
    assert value(reader, "xielu.alpha_p") == [np.float32(apertus.ALPHA_P)] * 2
    assert value(reader, "tokenizer.ggml.pre") == "bailingmoe"
    end, bos = (tokenizer.encode_special(name) for name in ("<|assistant_end|>", "<|bos|>"))
    ids = [value(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "bos", "eot")]
    assert ids == [end, bos, bos] and value(reader, "tokenizer.ggml.add_bos_token")
    kinds = value(reader, "tokenizer.ggml.token_type")
    assert [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL] == sorted(
        tokenizer.special_tokens.values()
    )
    kinds = {tensor.name: tensor.tensor_type.name.lower() for tensor in reader.tensors}
    assert kinds["blk.1.ffn_up.weight"] == kinds["token_embd.weight"] == quant
    assert kinds["blk.0.attn_k_norm.weight"] == "f32" and len(kinds) == 3 + 2 * 10
    assert "float16" not in str({tensor.data.dtype for tensor in reader.tensors})


def test_its_template_gives_our_prompt_without_bos_and_markers_that_were_typed_stay_text(
    tokenizer, tmp_path
):
    path, _ = written(tmp_path / "out", PORTABLE, tokenizer)
    source = value(gguf.GGUFReader(path), "tokenizer.chat_template")
    text = jinja2.Template(source).render(messages=QUESTION, add_generation_prompt=True)
    assert text == "<|user_start|>Be brief.\n\nHi < |bos|><|user_end|><|assistant_start|>"
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert "FROM ./mine.gguf\n" in modelfile and "PARAMETER num_ctx 256\n" in modelfile
    assert "$" not in modelfile.replace("$system", "") and "<|bos|>" not in modelfile


def test_where_the_locale_is_another_texts_are_still_utf_8(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "ascii")
    state = huggingface.expressible(PORTABLE, random_params(PORTABLE, seed=1), lossy=False)
    gguf_file.write(tmp_path / "gguf", "grüße", PORTABLE, state, tokenizer, "bf16", lambda path: [])
    assert "FROM ./grüße.gguf\n".encode() in (tmp_path / "gguf" / "Modelfile").read_bytes()
    params = random_params(PORTABLE, seed=1)
    folder = huggingface.export(tmp_path / "hf", PORTABLE, params, tokenizer)
    assert "Ġ".encode() in (folder / "tokenizer.json").read_bytes()  # how a blank is written there
    assert huggingface.load(folder).tokenizer.hash == tokenizer.hash


def test_an_apertus_model_has_the_rows_of_the_vocabulary_normed_and_half_of_each_head_turned():
    cfg = dataclasses.replace(PORTABLE, pad_vocab_to=64)
    params = random_params(cfg)
    state = huggingface.expressible(cfg, params, lossy=False)
    found = dict(apertus.tensors(cfg, state))
    rows = found["model.embed_tokens.weight"]
    assert rows.shape == (300, 64)
    np.testing.assert_allclose(np.square(rows).mean(-1), 1.0, rtol=1e-4)
    q = params["h_0"]["attn"]["c_q"]["kernel"].T
    turned = found["model.layers.0.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(turned[:16], q[:16])
    np.testing.assert_array_equal(turned[16:32], -q[16:32])


def test_words_with_their_marks_have_a_name_in_llama_cpp(marked, tmp_path):
    path, _ = written(tmp_path / "out", PORTABLE, marked)
    assert value(gguf.GGUFReader(path), "tokenizer.ggml.pre") == "qwen35"
    assert gguf_file.differences(marked) == []


def test_what_does_not_carry_over_is_told_and_a_check_that_fails_leaves_nothing(
    tokenizer, tmp_path
):
    assert apertus.differences(PORTABLE) == gguf_file.differences(tokenizer) == []
    pairs = Tokenizer.train(TEXTS, 300)
    assert "digit by digit" in gguf_file.differences(pairs)[0]
    foreign = Tokenizer.train(TEXTS, 300, r"\S+|\s+")
    assert "words are cut as nanochat does there" in gguf_file.differences(foreign)[0]
    classic = dataclasses.replace(PORTABLE, logit_softcap=15.0)
    assert "soft cap of 15" in apertus.differences(classic)[0]

    def fails(path):
        raise ValueError("other logits")

    with pytest.raises(ValueError, match="other logits"):
        written(tmp_path / "out", PORTABLE, tokenizer, check=fails)
    assert not list(tmp_path.iterdir())


def test_a_model_of_the_current_recipe_is_refused_by_its_tensors(tokenizer, tmp_path):
    cfg = GPTConfig(**SHAPE | recipe_model_defaults("current"))
    with pytest.raises(ValueError, match=r"leave out .*value_embeds\.1\.weight"):
        written(tmp_path / "out", cfg, tokenizer)


def test_without_llama_cpp_its_own_types_are_refused_before_anything_is_written(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(llama, "here", lambda: False)
    with pytest.raises(ValueError, match="--quant q8_0"):
        written(tmp_path / "out", PORTABLE, tokenizer, "q4_k_m")
    assert not list(tmp_path.iterdir())


def test_logits_as_far_off_as_the_type_explains_pass_and_nan_does_not():
    ours = np.array([[-1.0, 1.0], [1.0, -1.0]], np.float32)  # their spread is 1
    assert llama.apart(ours, ours + 0.03, "q8_0", "x.gguf") == pytest.approx(0.03, rel=1e-3)
    with pytest.raises(ValueError, match=r"x\.gguf: .* 0\.050 of their spread .* explains 0\.04"):
        llama.apart(ours, ours + 0.05, "q8_0", "x.gguf")
    one = ours.copy()
    one[1, 0] = np.nan
    for pair in ((ours, one), (one, ours)):
        with pytest.raises(ValueError, match="are nan of their spread"):
            llama.apart(*pair, "q8_0", "x.gguf")


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["f32", "bf16", "q8_0", "q4_k_m"])
def test_llama_cpp_reads_the_same_ids_and_computes_the_same_logits(
    quant, tokenizer, marked, tmp_path
):
    needs.llama()
    tokenizer = marked if quant == "f32" else tokenizer
    params = random_params(PORTABLE, seed=1)
    ours = Model.create(PORTABLE, params, dtype="float32")
    check = lambda path: llama.check(
        path, ours, tokenizer, quant, same_digits=True, softcap=0.0
    )  # fmt: skip
    _, told = written(tmp_path / "out", PORTABLE, tokenizer, quant, check)
    assert told[0].startswith("llama.cpp: the same ids")
    other = Model.create(PORTABLE, random_params(PORTABLE, seed=2), dtype="float32")
    with pytest.raises(ValueError, match="of their spread from ours"):
        llama.check(
            tmp_path / "out" / "mine.gguf", other, tokenizer, quant, same_digits=True, softcap=0.0
        )


@pytest.mark.slow
def test_convert_writes_a_classic_model_and_says_what_differs(theirs, base, tmp_path):
    from tests.interop.nanochat_files import take

    take(theirs)
    command = Export(dir=str(tmp_path / "out"), source="base", format="gguf", as_name="mine")
    folder, told = interop.export_model(command)
    assert (folder / "mine-bf16.gguf").exists() and "soft cap" in told[0]
