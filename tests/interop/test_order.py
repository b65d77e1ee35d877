"""The room is read downward: from what a program calls to the bytes of a file."""

import pytest

from tests.test_imports import PACKAGE, imports

# Each row may import the rows below it.
FLOORS = (
    ("__init__",),
    ("push",),
    ("compare", "exports", "imports", "merge", "space", "upload"),
    ("model_card",),
    ("probe", "elsewhere"),
    ("nanochat", "huggingface", "gguf_file"),
    ("apertus", "eras", "llama", "optim_files", "tiktoken_pickle", "torchfile"),
    ("names", "pickles", "stored_zip"),
)
FLOOR = {name: floor for floor, row in enumerate(FLOORS) for name in row}


@pytest.mark.parametrize("name", sorted(p.stem for p in (PACKAGE / "interop").glob("*.py")))
def test_a_file_of_the_room_imports_only_what_lies_below_it(name):
    used = {module.split(".")[2] for module in imports(PACKAGE / "interop" / f"{name}.py")
            if module.startswith("nanochat_jax.interop.")}  # fmt: skip
    assert not [other for other in used if FLOOR[other] <= FLOOR[name]]
