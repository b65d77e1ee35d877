"""Base directories: ours, empty, and nanochat's with one model."""

import pytest

from tests.interop.nanochat_files import folder_of, meta_of, state_of


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Our base directory, empty."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def theirs(tmp_path):
    """A base directory of nanochat's with one classic model."""
    return folder_of(tmp_path / "theirs", state_of("A"), meta_of("A"))
