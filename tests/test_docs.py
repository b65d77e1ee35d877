"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat_jax"
PATH = re.compile(r"`([\w./-]+(?:\.py|\.toml|\.md|/))`")
# Of the base directory, not of the repository.
ON_DISK = {
    "base_eval/",
    "base_data/",
    "jax_cache/",
    "eval/",
    "eval_bundle/",
    "report/",
    "report.md",
    "world_data/",
}
LINK = re.compile(r'(?:\]\((?!https?://|#)|src=")([^)#"]+)')


def documents() -> list[Path]:
    # The log tells of files as they were named then.
    return [ROOT / "README.md", *(p for p in ROOT.glob("docs/*.md") if p.name != "log.md")]


def layout() -> str:
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    return text.split("## Layout", 1)[1].split("```")[1]


@pytest.mark.parametrize("document", documents(), ids=lambda p: p.name)
def test_every_file_that_a_document_names_exists(document):
    text = document.read_text(encoding="utf-8")
    below = [PACKAGE, *(p for p in PACKAGE.rglob("*") if p.is_dir())]
    missing = [
        name for name in PATH.findall(text)
        if name not in ON_DISK
        and "_checkpoints/" not in name
        and not (ROOT / name).exists()
        and not any((folder / name).exists() for folder in below)
    ]  # fmt: skip
    assert not missing
    assert all((document.parent / link).exists() for link in LINK.findall(text))


def test_the_layout_names_every_room_of_the_package_and_every_folder_of_the_repository():
    named = set(re.findall(r"([\w]+(?:/|\.py))", layout()))
    rooms = {
        p.name + ("/" if p.is_dir() else "") for p in PACKAGE.iterdir()
        if p.name not in ("__init__.py", "__pycache__") and not p.name.startswith("_rustbpe")
        and (p.is_file() or any(p.rglob("*.py")))
    }  # fmt: skip
    assert rooms - named == set()
    inside = {"engine/", "server/"}  # named where their room is explained
    assert not [n for n in named - inside if not (PACKAGE / n).exists() and not (ROOT / n).exists()]
    assert {"rustbpe/", "scripts/", "configs/", "bench/", "tests/", "docs/"} <= named


def test_what_the_troubleshooting_quotes_is_what_programs_say():
    """The words in quotes of its first columns, up to an ellipsis, stand in some message."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    firsts = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    said = [part.strip(" .") for first in firsts for quoted in re.findall('"([^"]+)"', first)
            for part in re.split(r"\.\.\.|'\d+'|\d+", quoted)]  # fmt: skip
    sources = [*PACKAGE.rglob("*.py"), ROOT / "Makefile"]
    messages = re.sub(
        r'"\s*\n\s*f?"', "", "\n".join(p.read_text(encoding="utf-8") for p in sources)
    )
    assert len(said) > 5 and not [part for part in said if part and part not in messages]
