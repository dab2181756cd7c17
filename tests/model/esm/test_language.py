"""The frozen language model: against Hugging Face's, on batches of unequal length; when it runs, and when not."""

import copy
import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from app.chem.residues import MASK_TOKEN
from app.errors import UserError
from app.model.esm import backends
from app.model.esm.language import LanguageModel
from app.model.esm.settings import EsmSettings
from app.model.esm.tokens import Alphabet, lay_out
from app.ops import select
from app.ops.settings import KernelSettings
from tests.factories import noisy_batch, padded, rows
from tests.memory import NoReadBack
from tests.model.esm.made_esm import VOCABULARY, hugging_face

CPU = torch.device("cpu")
ALPHABET = Alphabet.of(VOCABULARY, "")
both_backends = pytest.mark.parametrize("backend", ["faplm", "transformers"])


def language(folder: Path, backend: str = "transformers", **settings) -> LanguageModel:
    return LanguageModel(EsmSettings(name=str(folder), backend=backend, **settings))


def batch(size: int = 3, **changes):
    """Two chains of unequal lengths, few masked tokens."""
    made = noisy_batch(size, 12)
    tokens = torch.where(made.aatypes_t == MASK_TOKEN, 3, made.aatypes_t)
    tokens[:, 4] = MASK_TOKEN
    return dataclasses.replace(made, **{"aatypes_t": tokens} | changes)


def counted(monkeypatch, model: LanguageModel) -> list:
    calls, run = [], model._run
    monkeypatch.setattr(model, "_run", lambda *given: (calls.append(1), run(*given))[1])
    return calls


@both_backends
def test_hidden_states_of_all_layers_are_hugging_faces(esm, backend):
    made = batch()
    layout, here = lay_out(made, ALPHABET, 25), made.res_mask.bool()
    ids = layout.read(made)
    with torch.no_grad():
        expected = hugging_face(esm)(ids, (ids != 1).long(), output_hidden_states=True).hidden_states
    found = language(esm, backend)(made, CPU).hidden
    assert found.shape == (4, 3, 12, 32)
    for ours, theirs in zip(found, expected, strict=True):
        theirs = theirs[torch.arange(3)[:, None], layout.place]
        torch.testing.assert_close(ours[here], theirs[here], atol=1e-4, rtol=1e-4)


def test_attention_maps_are_hugging_faces(esm):
    made = batch()
    layout, here = lay_out(made, ALPHABET, 25), made.res_mask.bool()
    ids = layout.read(made)
    with torch.no_grad():
        expected = hugging_face(esm)(ids, (ids != 1).long(), output_attentions=True).attentions
    found = language(esm, mode="node_and_edge")(made, CPU).maps
    assert found.shape == (3, 12, 12, 12)
    for b in range(3):
        place = layout.place[b][here[b]]
        ours = found[b][here[b]][:, here[b]]
        theirs = torch.cat([layer[b][:, place][:, :, place] for layer in expected]).movedim(0, -1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@both_backends
def test_batch_mates_and_padding_change_nothing(esm, backend):
    made = batch()
    together = language(esm, backend)(made, CPU).hidden
    for index in range(3):
        alone = language(esm, backend)(rows(padded(made, 5), index), CPU).hidden
        here = made.res_mask[index].bool()
        torch.testing.assert_close(together[:, index, here], alone[:, 0, :12][:, here], atol=1e-4, rtol=1e-4)


@both_backends
def test_masks_alone_give_sane_representations(esm, backend):
    """Every design starts from them."""
    model = language(esm, backend)
    plain = model(batch(), CPU).hidden
    masked = model(batch(aatypes_t=torch.full((3, 12), MASK_TOKEN), chain_idx=torch.ones(3, 12)), CPU).hidden
    assert masked.isfinite().all()
    for layer in (1, 2, 3):
        assert 0.2 < masked[layer].std() / plain[layer].std() < 2


def test_the_linker_is_the_distance_between_chains(esm):
    near, far = (language(esm, linker=length)(batch(), CPU).hidden for length in (1, 25))
    assert not torch.allclose(near[-1], far[-1], atol=1e-3)


def test_it_is_frozen_and_no_gradient_comes_from_it(esm):
    model = language(esm)
    assert not model(batch(), CPU).hidden.requires_grad
    inner = model._loaded.model
    assert not inner.training and not any(p.requires_grad for p in inner.parameters())


def test_the_same_tokens_are_read_once(esm, monkeypatch):
    model, made = language(esm), batch()
    calls = counted(monkeypatch, model)
    first = model(made, CPU)
    assert model(dataclasses.replace(made, trans_t=made.trans_t + 1, cat_t=made.cat_t / 2), CPU) is first
    assert len(calls) == 1
    for change in ({"aatypes_t": made.aatypes_t.clone().fill_(5)}, {"chain_idx": torch.ones(3, 12)}):
        model(dataclasses.replace(made, **change), CPU)
    assert len(calls) == 3
    model.release()
    model(dataclasses.replace(made, chain_idx=torch.ones(3, 12)), CPU)
    assert len(calls) == 4


def test_residues_at_other_places_are_other_representations(esm):
    """The same tokens, of which another residue is absent: what was kept must not be taken for it."""
    model = language(esm)
    made = rows(batch(2, chain_idx=torch.ones(2, 12), aatypes_t=torch.full((2, 12), 5)), 0)
    first, last = made.res_mask.clone(), made.res_mask.clone()
    first[0, 0] = last[0, 11] = 0
    made.res_idx = 1 + torch.arange(12)[None]
    one = model(dataclasses.replace(made, res_mask=first), CPU).hidden
    other = model(dataclasses.replace(made, res_mask=last), CPU).hidden
    torch.testing.assert_close(one[:, :, 1:], other[:, :, :11])


def test_what_was_made_in_inference_can_be_trained_on(esm):
    model = language(esm)
    with torch.inference_mode():
        model(batch(), CPU, model.lay_out(batch(), CPU))
    weight = torch.ones(32, requires_grad=True)
    (model(batch(), CPU).hidden * weight).sum().backward()
    assert weight.grad.isfinite().all()


@both_backends
def test_its_precision_is_its_own(esm, backend):
    expected = language(esm, backend)(batch(), CPU).hidden
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(language(esm, backend)(batch(), CPU).hidden, expected)
    low = language(esm, backend, precision="bfloat16")(batch(), CPU).hidden
    assert (expected.dtype, low.dtype) == (torch.float32, torch.bfloat16)
    here = batch().res_mask.bool()
    error = (low.float() - expected)[:, here]
    assert error.std() < 0.05 * expected[:, here].std()
    with pytest.raises(UserError, match=r"model\.esm\.precision=float16: the cpu device has none"):
        language(esm, backend, precision="float16")(batch(), CPU)


def test_positions_are_float32_whatever_the_weights_are(esm):
    model = language(esm, precision="bfloat16")
    model(batch(), CPU)
    inner = [module.inv_freq for module in model._loaded.model.modules() if hasattr(module, "inv_freq")]
    assert len(inner) == 3 and all(value.dtype == torch.float32 for value in inner)
    torch.testing.assert_close(inner[0], 10_000 ** (-torch.arange(0, 8, 2) / 8), atol=1e-8, rtol=1e-6)


def test_copies_leave_the_weights_behind_and_load_them_again(esm):
    model = language(esm)
    expected = model(batch(), CPU).hidden
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._loaded is None and other._last is None
        assert torch.equal(other(batch(), CPU).hidden, expected)
    assert len(pickle.dumps(model)) < 10_000


def test_another_device_has_it_loaded_anew(esm, monkeypatch):
    asked, build = [], backends.build
    monkeypatch.setattr(backends, "build", lambda *given: (asked.append(given[3]), build(*given[:3], CPU, given[4]))[1])
    model = language(esm)
    model(batch(), CPU)
    model(batch(), CPU)
    loaded = model._loaded
    model._loaded = dataclasses.replace(loaded, device=torch.device("meta"))  # as if it were elsewhere
    model(batch(), CPU)
    assert asked == [CPU, CPU]
    assert model._loaded.model is not loaded.model


def test_looking_for_it_loads_nothing(esm, monkeypatch):
    monkeypatch.setattr(backends, "build", None)
    model = language(esm, "faplm")
    model.check(CPU)
    assert model._loaded is None
    assert model.identity() == {"name": str(esm), "sha256": model._sha256}


@both_backends
def test_with_a_layout_it_reads_nothing_back_and_gives_the_same(esm, backend, monkeypatch):
    model, made = language(esm, backend), batch()
    layout = model.lay_out(made, CPU)
    calls = counted(monkeypatch, model)
    for step in range(2):
        later = dataclasses.replace(made, aatypes_t=(made.aatypes_t + step) % 20)
        expected = language(esm, backend)(later, CPU).hidden
        with NoReadBack():
            found = model(later, CPU, layout).hidden
        assert torch.equal(found, expected)
    assert len(calls) == 2 and model._last is None


def test_no_work_is_done_on_padding(esm):
    made = batch()
    made = dataclasses.replace(made, res_mask=made.res_mask * (torch.arange(12) < torch.tensor([[12], [9], [4]])))
    model, here = language(esm, "faplm"), made.res_mask.bool()
    layout, shapes = model.lay_out(made, CPU), []
    for layer in model._loaded.model.encoder.layer:
        layer.register_forward_hook(lambda module, given, out: shapes.append(out[0].shape))
    found = model(made, CPU).hidden
    assert set(shapes) == {(sum(layout.sequences.lengths), 32)} and len(set(layout.sequences.lengths)) == 3
    torch.testing.assert_close(found[:, here], language(esm)(made, CPU).hidden[:, here], atol=1e-4, rtol=1e-4)


def test_the_attention_is_the_operation_that_the_settings_name(esm):
    expected = language(esm, "faplm")(batch(), CPU).hidden
    with select.using(KernelSettings(esm_attention="reference")):
        found = language(esm, "faplm")(batch(), CPU).hidden
        assert [str(choice).partition(" (")[0] for choice in select.choices()] == ["esm_attention: reference"]
    here = batch().res_mask.bool()
    torch.testing.assert_close(found[:, here], expected[:, here], atol=1e-5, rtol=1e-5)
