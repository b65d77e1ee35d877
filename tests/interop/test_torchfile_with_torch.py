"""What torch writes we read bit for bit, and what we write torch reads, mapped or not."""

import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings

from nanochat_jax.interop import torchfile
from nanochat_jax.interop.pickles import UnsafeFile
from tests import needs
from tests.interop.torch_made import TREES

pytestmark = pytest.mark.slow
torch = needs.package("torch")

MAPPED = pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])
DTYPES = [getattr(torch, name) for name in torchfile.DTYPES]


def same(theirs, ours) -> None:
    """Equal trees; tensors against arrays to the bit, a size against a tuple."""
    if isinstance(theirs, torch.Tensor):
        raw = theirs.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        name = str(theirs.dtype).removeprefix("torch.")
        assert (name, tuple(theirs.shape), raw) == (ours.dtype.name, ours.shape, ours.tobytes())
    elif isinstance(theirs, torch.dtype):
        assert str(theirs) == f"torch.{ours.name}"
    elif isinstance(theirs, dict):
        assert type(ours) is dict and list(theirs) == list(ours)
        for key in theirs:
            same(theirs[key], ours[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (list if isinstance(theirs, list) else tuple)
        assert len(theirs) == len(ours)
        for a, b in zip(theirs, ours, strict=True):
            same(a, b)
    else:
        assert type(theirs) is type(ours)
        packed = lambda v: struct.pack("d", v) if isinstance(v, float) else v
        assert packed(theirs) == packed(ours)


def read_by_us(path, tree, **kw):
    torch.save(tree, path / "theirs.pt", **kw)
    ours = torchfile.load(path / "theirs.pt")
    same(tree, ours)
    return ours


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = (torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3, bias=False), torch.nn.BatchNorm1d(3))
    return torch.nn.Sequential(*layers)


def stepped(model: torch.nn.Module, kind=torch.optim.AdamW, **kw) -> torch.optim.Optimizer:
    """An optimizer after one step."""
    groups = [{"params": [p], "lr": 0.1 * i} for i, p in enumerate(model.parameters(), 1)]
    optimizer = kind(groups, **kw)
    model(torch.arange(5)).square().sum().backward()
    optimizer.step()
    return optimizer


# ---- what torch writes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_of_number_is_read(tmp_path, dtype):
    numbers = torch.randn(3, 4).mul(100).abs().to(torch.float32).to(dtype)
    read_by_us(tmp_path, {"many": numbers, "one": numbers[0, 0], "none": numbers[:0]})


def test_views_are_read_as_what_they_show_and_still_share_their_storage(tmp_path):
    base = torch.arange(60, dtype=torch.bfloat16).reshape(3, 4, 5)
    views = {
        "base": base, "transposed": base.mT, "permuted": base.permute(2, 0, 1),
        "row": base[1], "column": base[:, :, 2], "steps": base[::2, 1::2, ::3],
        "corner": base[-1, -1, -1], "diagonal": base[0].diagonal(), "empty": base[:, 4:],
        "expanded": base[0, 0].expand(6, 5), "windows": base.reshape(-1).unfold(0, 7, 3),
        "strided": torch.as_strided(base, (4, 4), (3, 3), 5),
    }  # fmt: skip
    ours = read_by_us(tmp_path, views)
    assert all(np.shares_memory(ours["base"], ours[k]) for k in views if k != "empty")


def test_a_modules_state_and_its_parameters_are_read(tmp_path):
    model = small_model()
    assert isinstance(model.state_dict(), OrderedDict)
    read_by_us(tmp_path, model.state_dict())
    read_by_us(tmp_path, model.bfloat16().state_dict())
    read_by_us(tmp_path, list(model.parameters()))
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "an attribute"
    read_by_us(tmp_path, {"marked": marked, "size": marked.shape, "type": marked.dtype})


@pytest.mark.parametrize(
    "kind, kw",
    [
        (torch.optim.AdamW, dict(betas=(0.8, 0.95), eps=1e-10)),
        (torch.optim.AdamW, dict(amsgrad=True, foreach=True)),
        (torch.optim.SGD, dict(momentum=0.9, nesterov=True)),
        (torch.optim.Adagrad, {}),
    ],
)
def test_an_optimizers_state_is_read(tmp_path, kind, kw):
    state = stepped(small_model(), kind, **kw).state_dict()
    read_by_us(tmp_path, state)
    read_by_us(tmp_path, [state, {"adamw": state, "note": None}])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    tree = {"model": small_model().state_dict(), "loss": [0.5, 1e400], 3: (True, 2**70, "é")}
    read_by_us(tmp_path, tree, pickle_protocol=protocol)


@pytest.mark.parametrize("option", [("storage_alignment", 4096), ("compute_crc32", False)])
def test_files_of_another_alignment_or_without_checksums_are_read(tmp_path, option):
    config = needs.package("torch.utils.serialization.config")
    with config.patch({f"save.{option[0]}": option[1]}):
        read_by_us(tmp_path, small_model().state_dict())


def test_the_format_before_1_6_is_refused_by_name(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="a.pt is in torch's format of before 1.6"):
        torchfile.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "tree, name",
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.ones(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.ones(2, dtype=torch.complex64), "torch.ComplexFloatStorage"),
        (torch.device("cpu"), "torch.device"),
    ],
    ids=["module", "sparse", "meta", "complex", "device"],
)
def test_what_no_state_dict_holds_is_refused_by_name(tmp_path, tree, name):
    torch.save({"a": tree}, tmp_path / "a.pt")
    with pytest.raises(UnsafeFile, match=f"asks for {name}"):
        torchfile.load(tmp_path / "a.pt")


def test_a_tensor_that_is_negative_in_name_only_is_refused(tmp_path):
    torch.save(torch._neg_view(torch.ones(2)), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="in name only"):
        torchfile.load(tmp_path / "a.pt")


# ---- what we write


@MAPPED
@settings(deadline=None)
@given(tree=TREES)
def test_torch_reads_what_we_write_with_weights_only(tmp_path_factory, mmap, tree):
    path = tmp_path_factory.mktemp("ours") / "ours.pt"
    torchfile.save(path, tree)
    same(torch.load(path, weights_only=True, mmap=mmap), tree)


@MAPPED
def test_arrays_that_are_one_share_their_storage_in_torch_too(tmp_path, mmap):
    array = np.arange(6, dtype=np.float32)
    torchfile.save(tmp_path / "a.pt", [array, array, array.copy()])
    a, b, c = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
    assert a.data_ptr() == b.data_ptr() != c.data_ptr()
    assert mmap or a.data_ptr() % 16 == 0


def test_a_module_and_its_optimizer_go_on_from_what_we_write(tmp_path):
    ours, theirs = small_model(), small_model()
    optimizer = stepped(theirs)
    torch.save([theirs.state_dict(), optimizer.state_dict()], tmp_path / "theirs.pt")
    torchfile.save(tmp_path / "ours.pt", torchfile.load(tmp_path / "theirs.pt"))
    model_state, optimizer_state = torch.load(tmp_path / "ours.pt", weights_only=True)
    ours.load_state_dict(model_state, strict=True)
    again = torch.optim.AdamW([{"params": [p]} for p in ours.parameters()])
    again.load_state_dict(optimizer_state)
    for model, by in ((theirs, optimizer), (ours, again)):
        by.zero_grad()
        model(torch.arange(5)).square().sum().backward()
        by.step()
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a, b)
