"""A pickle that comes with a model is data or it is refused: nothing in it ever runs."""

import numpy as np
import pytest

from nanochat_jax.interop import torchfile
from nanochat_jax.interop.pickles import UnsafeFile, plain
from tests.interop.torch_made import call, numbers, storage, tensor, write


def system(command: str) -> bytes:
    return call("posix.system", plain(command))


ATTACKS = {
    "REDUCE of os.system": lambda c: system(c),
    "STACK_GLOBAL of os.system": lambda c: (
        plain("os") + plain("system") + b"\x93(" + plain(c) + b"tR"
    ),
    "builtins.eval": lambda c: call("builtins.eval", plain(f"__import__('os').system({c!r})")),
    "builtins.getattr": lambda c: call("builtins.getattr", plain(""), plain("format")),
    "python 2's names": lambda c: call("__builtin__.exec", plain(f"import os; os.system({c!r})")),
    "inside a dict in a list": lambda c: b"](}" + plain("a") + system(c) + b"se",
    "as a tensor's size": lambda c: call(
        "torch._utils._rebuild_tensor_v2", storage(1), plain(0), system(c), numbers(1)
    ),
    "as a storage": lambda c: tensor(system(c), 0, (1,), (1,)),
    "as a persistent id": lambda c: system(c) + b"Q",
    "as a module's notes": lambda c: call("collections.OrderedDict") + system(c) + b"b",
    "through the memo": lambda c: b"cposix\nsystem\nq\x00h\x00(" + plain(c) + b"tR",
    "INST": lambda c: b"(" + plain(c) + b"iposix\nsystem\n",
    "OBJ": lambda c: b"(cposix\nsystem\n" + plain(c) + b"o",
    "NEWOBJ": lambda c: b"cposix\nsystem\n(" + plain(c) + b"t\x81",
    "NEWOBJ_EX": lambda c: b"ctorch\nSize\n)}\x92",
    "an extension": lambda c: b"\x82\x01)R",
    "an attribute of a known name": lambda c: call("torch._utils._rebuild_tensor.__globals__"),
    "BUILD of a function": lambda c: (
        b"ctorch._utils\n_rebuild_tensor\nN}" + plain("__defaults__") + b")s\x86b"
    ),
    "BUILD of an array": lambda c: tensor(storage(1), 0, (1,), (1,)) + b")b",
    "a call of a string": lambda c: plain(c) + b")R",
    "a call of a type": lambda c: b"ctorch\nfloat32\n)R",
    "torch's own loader": lambda c: call("torch.load", plain(c)),
    "torch.jit": lambda c: call("torch.jit._unwrap_optional", plain(c)),
    "numpy's loader": lambda c: call("numpy.load", plain(c)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_wants_to_run_something_is_refused_and_does_not(tmp_path, attack):
    ran = tmp_path / "ran"
    pickled = b"\x80\x02" + ATTACKS[attack](f"touch {ran}") + b"."
    path = write(tmp_path / "attack.pt", pickled, np.ones(1, np.float32).tobytes())
    with pytest.raises(UnsafeFile, match="attack.pt is refused: its pickle") as caught:
        torchfile.load(path)
    assert not ran.exists() and isinstance(caught.value, ValueError)
    assert torchfile._tensor.__defaults__ == (None, None, None)


TUPLES = b")" + b"q\x00h\x00\x86" * 80  # each a pair of the one before
BOMBS = {
    "a list in itself": b"]q\x00h\x00a",
    "a thousand lists in each other": b"]" * 1000 + b"a" * 999,
    "tuples of twice the one before": TUPLES,
    "their hash": b"}" + TUPLES + b"Ns",
    "a list appended to a tuple": b")Na",
    "more taken than put": b"]\x87",
    "less than an opcode takes": b"(\x87",
    "no mark": b"Nt",
    "an empty memo": b"h\x07",
    "a function": b"ctorch\nSize\n",
    "a storage": storage(1),
    "a storage class": b"ctorch\nFloatStorage\n",
    "odd items": b"}(NNNu",
    "half a string": b"X\xff\xff\xff\x7fab",
    "no opcode": b"\xff",
    "nothing": b"",
    "too few arguments": call("torch._utils._rebuild_tensor_v2", storage(1)),
    "a size of names": call("torch._utils._rebuild_tensor_v2", storage(1), b"K\x00", b"}", b")"),
    "negative strides": tensor(storage(1), 0, (1,), (-1,)),
    "more sizes than strides": tensor(storage(1), 0, (1, 1), (1,)),
    "an endless size": tensor(storage(1), 0, (2**62, 2**62), (0, 0)),
    "an endless empty size": tensor(storage(1), 0, (0, 2**63), (0, 0)),
    "a negative count": tensor(storage(-1), 0, (1,), (1,)),
    "a count that is no number": (
        b"(" + plain("storage") + b"ctorch\nFloatStorage\n" + plain("0") + plain("cpu") + b"\x88tQ"
    ),
    "another count": tensor(storage(2), 0, (1,), (1,)),
    "another type": tensor(storage(1, kind="LongStorage"), 0, (1,), (1,)),
    "a storage that is not there": tensor(storage(1, "7"), 0, (1,), (1,)),
    "a storage outside": tensor(storage(1, "../data.pkl"), 0, (1,), (1,)),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_that_makes_no_sense_is_refused_at_once(tmp_path, bomb):
    pickled = b"\x80\x02" + BOMBS[bomb] + b"."
    path = write(tmp_path / "bomb.pt", pickled, np.ones(1, np.float32).tobytes())
    with pytest.raises(ValueError, match="bomb.pt .* again"):
        torchfile.load(path)
