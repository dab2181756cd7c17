"""FAPLM's own path for flash-attn, on the CPU: a stand-in for the package does in plain PyTorch what its kernels do."""

import dataclasses
import importlib
import sys
import types

import pytest
import torch

from app.model.esm import backends
from tests.model.esm.test_language import CPU, batch, language


def attention(qkv, cu_seqlens, max_seqlen, softmax_scale):
    """[tokens of all sequences, 3, H, D] -> [tokens of all sequences, H, D], every sequence for itself."""
    outs = []
    for one in qkv.split(cu_seqlens.diff().tolist()):
        q, k, v = one.transpose(0, 2).unbind(1)  # [H, n, D]
        outs.append(((softmax_scale * q @ k.mT).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outs)


def rotate(x, cos, sin, cu_seqlens, max_seqlen, inplace, conjugate=False):
    """Rotary embedding of [tokens of all sequences, H, D] in place; positions begin anew with every sequence."""
    place = torch.cat([torch.arange(length) for length in cu_seqlens.diff().tolist()])
    cos, sin = cos[place][:, None], sin[place][:, None]
    first, second = x.chunk(2, dim=-1)
    x.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))


def unpad(x, mask):
    lengths = mask.sum(-1)
    ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    return x[mask], mask.flatten().nonzero()[:, 0], ends, int(lengths.max()), lengths


def pad(x, indices, size, length):
    return x.new_zeros(size * length, *x.shape[1:]).index_copy(0, indices, x).unflatten(0, (size, length))


@pytest.fixture
def flash(monkeypatch):
    """faesm as it is where flash-attn is installed and a GPU is there."""
    names = ("flash_attn", "bert_padding", "flash_attn_interface", "layers", "layers.rotary", "ops", "ops.triton",
             "ops.triton.rotary")  # fmt: skip
    modules = {name if name == "flash_attn" else f"flash_attn.{name}": None for name in names}
    for name in modules:
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: None
        module.__path__, modules[name] = [], module
        monkeypatch.setitem(sys.modules, name, module)
    modules["flash_attn"].flash_attn_varlen_qkvpacked_func = attention
    modules["flash_attn.bert_padding"].unpad_input = unpad
    modules["flash_attn.bert_padding"].pad_input = pad
    modules["flash_attn.ops.triton.rotary"].apply_rotary = rotate
    for name in ("faesm.esm", "faesm.fa_utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (9, 0))
    monkeypatch.setattr(backends, "runs_flash_attention", lambda device, dtype: True)
    yield importlib.import_module("faesm.esm")
    for name in ("faesm.esm", "faesm.fa_utils"):
        sys.modules.pop(name, None)


def test_packed_sequences_come_out_as_padded_ones_do(esm, flash):
    made = batch()
    made = dataclasses.replace(made, res_mask=made.res_mask * (torch.arange(12) < torch.tensor([[12], [9], [4]])))
    model, here = language(esm, "faplm"), made.res_mask.bool()
    shapes, seen = [], lambda module, given, out: shapes.append(out[0].shape)
    found = model(made, CPU).hidden
    assert flash.flash_attn_installed and model._loaded.model.config.use_fa
    model._loaded.model.encoder.layer[0].register_forward_hook(seen)
    model.release()
    model(made, CPU)
    assert len(shapes[0]) == 2  # it did pack them
    torch.testing.assert_close(found[:, here], language(esm)(made, CPU).hidden[:, here], atol=1e-4, rtol=1e-4)
