"""A base directory that a tiny run can begin in."""

import json
import pathlib

import pytest

from nanochat_jax.data import importer
from tests.serve.world import BYTES


@pytest.fixture
def text_root(base_dir, tmp_path) -> pathlib.Path:
    """`base_dir` with a tokenizer of bytes and ninety short documents."""
    BYTES.save(base_dir / "tokenizer")
    lines = (json.dumps({"text": f"{i} and {i + 1} make {2 * i + 1}. " * 9}) for i in range(90))
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    importer.add_documents(base_dir, [tmp_path / "text.jsonl"])
    return base_dir
