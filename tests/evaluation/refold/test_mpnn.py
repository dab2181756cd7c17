"""ProteinMPNN's network: its symmetries, its two ways to decode, and the published implementation's numbers."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from app.chem import backbone as ideal
from app.evaluation.refold.mpnn.features import CB, OTHER_CHAIN, with_beta
from app.evaluation.refold.mpnn.model import LETTERS, NOT_GIVEN, Encoded, ProteinMPNN
from tests.evaluation.refold.made_models import backbone, tiny_mpnn
from tests.factories import generator, random_rotations
from tests.mac import StandIn

TYPES = len(LETTERS)


@pytest.fixture(scope="module")
def model():
    return tiny_mpnn()


def encoded(model, *backbones) -> Encoded:
    lengths = torch.tensor([len(one.sequence) for one in backbones])
    parts = [pad_sequence([getattr(one, name) for one in backbones], batch_first=True)
             for name in ("atoms", "numbers", "chains")]  # fmt: skip
    return model.encode(parts[0], torch.arange(int(lengths.max())) < lengths[:, None], *parts[1:])


def drawn(*shape: int, seed: int = 0):
    """Tokens, an order and noise for B sequences of N residues."""
    size, length = shape
    source = generator(seed)
    tokens = torch.randint(TYPES - 1, shape, generator=source)
    order = torch.rand(shape, generator=source).argsort(1)
    return tokens, order, -torch.empty(size, length, TYPES - 1).exponential_(generator=source).log()


def test_the_published_implementation_gives_these_numbers():
    """Computed once by github.com/dauparas/ProteinMPNN on the same weights, backbone, tokens and order."""
    model, place = ProteinMPNN(16, neighbours=6, encoder_depth=2, decoder_depth=2), torch.arange(14).double()
    weights = {}
    for index, (name, value) in enumerate(sorted(model.state_dict().items())):
        made = 0.5 * torch.sin(0.37 * torch.arange(value.numel()).double() ** 2 + index)
        weights[name] = made.float().view(value.shape) + float("norm" in name and name.endswith("weight"))
    model.load_state_dict(weights)
    ca = torch.stack([2.3 * torch.cos(1.75 * place), 2.3 * torch.sin(1.75 * place), 1.5 * place], -1)
    around = [torch.stack([torch.cos(k + place), torch.sin(2 * k + place), torch.cos(3 * k - place)], -1)
              for k in (0, 2, 3)]  # fmt: skip
    n, c, o = (ca + 0.8 * one for one in around)
    numbers = torch.tensor([[1, 2, 3, 4, 5, 6, 9, 10, 11, 1, 2, 3, 4, 60]])
    chains = torch.tensor([[1] * 9 + [2] * 5])
    atoms = torch.stack([n, ca, c, o], 1).float()[None]
    seen = model.encode(atoms, torch.ones(1, 14, dtype=torch.bool), numbers, chains)
    tokens, order = (torch.arange(14) * 5 % 21)[None], (torch.arange(14) * 3 % 14)[None]
    published = torch.tensor(
        [
            [-5.23421, -4.64729, -3.44057, -4.46279, -0.92987],
            [-5.12929, -4.30265, -3.11007, -4.14637, -1.01105],
            [-5.06280, -4.41439, -3.14333, -4.19946, -1.08373],
            [-4.88392, -4.37846, -2.88643, -4.45276, -1.13008],
        ]
    )
    torch.testing.assert_close(model(seen, tokens, order)[0, [0, 5, 9, 13], :5], published, atol=2e-5, rtol=0)


def test_moving_a_backbone_changes_nothing(model):
    one = backbone(9, 8)
    tokens, order, _ = drawn(1, 17)
    still = model(encoded(model, one), tokens, order)
    moved = one.atoms @ random_rotations(1)[0].mT + torch.tensor([30.0, -20.0, 10.0])
    there = torch.ones(1, 17, dtype=torch.bool)
    turned = model(model.encode(moved[None], there, one.numbers[None], one.chains[None]), tokens, order)
    torch.testing.assert_close(turned, still, atol=1e-4, rtol=0)
    mirrored = model(model.encode(-one.atoms[None], there, one.numbers[None], one.chains[None]), tokens, order)
    assert (mirrored - still).abs().max() > 1e-2


@pytest.mark.parametrize("length", [4, 11])  # fewer residues than neighbours, and more
def test_padding_and_the_order_of_residues_change_nothing(model, length):
    one, more = backbone(length), 5
    tokens, order, _ = drawn(1, length)
    alone = model(encoded(model, one), tokens, order)
    where = torch.randperm(length + more, generator=generator())  # padding among the residues
    garbage = 3 * torch.randn(1, more, 4, 3, generator=generator())

    def among(values, padding):
        return torch.cat([values, padding], 1)[:, where]

    nothing = torch.zeros(1, more, dtype=torch.long)
    seen = model.encode(
        among(one.atoms[None], garbage),
        among(torch.ones(1, length, dtype=torch.bool), nothing.bool()),
        among(one.numbers[None], nothing + 3),
        among(one.chains[None], nothing + 1),
    )
    place = torch.argsort(where)  # of each residue, then of each padding
    both = torch.cat([place[length:][None], place[order]], 1)
    shuffled = model(seen, among(tokens, nothing), both)[:, place[:length]]
    torch.testing.assert_close(shuffled, alone, atol=1e-5, rtol=0)


def test_a_batch_equals_singles(model):
    several = [backbone(12), backbone(5, 4, seed=1), backbone(3, seed=2)]
    tokens, _, noise = drawn(3, 12)
    orders = torch.stack([torch.cat([torch.randperm(n), torch.arange(n, 12)]) for n in (12, 9, 3)])
    together = encoded(model, *several)
    said = model(together, tokens, orders)
    made, _ = model.sample(together, orders, noise, 1.0)
    for row, one in enumerate(several):
        part = slice(row, row + 1), slice(len(one.sequence))
        alone = encoded(model, one)
        expected = model(alone, tokens[part], orders[part])
        torch.testing.assert_close(said[part], expected, atol=1e-5, rtol=0)
        assert torch.equal(made[part], model.sample(alone, orders[part], noise[part], 1.0)[0])


def test_residues_see_those_before_them_in_the_order_and_no_others(model):
    seen = encoded(model, backbone(6))  # each is the neighbour of each
    tokens, order, _ = drawn(1, 6)
    said = model(seen, tokens, order)
    for step in range(6):
        place = order[0, step]
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % (TYPES - 1)
        differs = (model(seen, changed, order) - said).abs().amax(-1)[0] > 1e-6
        assert set(differs.nonzero().flatten().tolist()) == set(order[0, step + 1 :].tolist())


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_what_was_drawn_is_as_likely_as_when_it_is_given(model, temperature):
    """Step by step, and all at once with the drawn residues known."""
    seen = encoded(model, backbone(13, 6)).repeated(3)
    _, order, noise = drawn(3, 19)
    tokens, said = model.sample(seen, order, noise, temperature)
    torch.testing.assert_close(model(seen, tokens, order), said, atol=1e-5, rtol=0)


def test_low_temperatures_take_the_likeliest(model):
    seen = encoded(model, backbone(15)).repeated(2)
    _, order, noise = drawn(2, 15)
    coldest, said = model.sample(seen, order, noise, 0.0)
    assert torch.equal(coldest, said[..., :-1].argmax(-1))
    assert torch.equal(coldest, model.sample(seen, order, noise, 1e-6)[0])
    assert not torch.equal(coldest, model.sample(seen, order, noise, 1.0)[0])


def test_draws_follow_the_probabilities(model):
    """4,000 draws of one residue at temperature 0.5, within four standard deviations."""
    count = 4000
    seen = encoded(model, backbone(1)).repeated(count)
    noise = drawn(count, 1)[2]
    tokens, said = model.sample(seen, torch.zeros(count, 1, dtype=torch.long), noise, 0.5)
    expected = (said[0, 0, :-1] / 0.5).softmax(-1)
    shares = torch.bincount(tokens[:, 0], minlength=TYPES - 1) / count
    assert ((shares - expected).abs() < 4 * (expected * (1 - expected) / count).sqrt() + 1e-6).all()


def test_given_residues_stay_and_are_seen(model):
    seen = encoded(model, backbone(10))
    tokens, order, noise = drawn(1, 10)
    order = torch.tensor([[2, 7, *(k for k in order[0].tolist() if k not in (2, 7))]])
    given = torch.full_like(tokens, NOT_GIVEN)
    given[0, [2, 7]] = torch.tensor([3, TYPES - 1])  # one of them unknown
    made, said = model.sample(seen, order, noise, 0.5, given)
    assert made[0, 2] == 3 and made[0, 7] == TYPES - 1
    assert (made[0, [k for k in range(10) if k != 7]] < TYPES - 1).all()
    torch.testing.assert_close(model(seen, made, order), said, atol=1e-5, rtol=0)
    given[0, 2] = 4
    assert (model.sample(seen, order, noise, 0.5, given)[1] - said).abs().max() > 1e-3


def test_an_unknown_residue_is_never_drawn(model):
    tilted = tiny_mpnn(seed=5)
    tilted.W_out.bias[-1] = 100.0
    made, _ = tilted.sample(encoded(tilted, backbone(8)), *drawn(1, 8)[1:], 1.0)
    assert (made < TYPES - 1).all()


def test_beta_atoms_are_where_ideal_residues_have_them():
    atoms = torch.tensor([ideal.IDEAL_N, ideal.IDEAL_CA, ideal.IDEAL_C, (0.0, 0.0, 0.0)])
    torch.testing.assert_close(with_beta(atoms)[CB], torch.tensor(ideal.IDEAL_CB), atol=0.1, rtol=0)


def test_offsets_are_cut_off_and_chains_told_apart(model):
    embed = model.features.embeddings
    same = torch.ones(4, dtype=torch.bool)
    far = embed(torch.tensor([32, 33, 500, -500]), same)
    assert torch.equal(far[0], far[1]) and torch.equal(far[0], far[2]) and not torch.equal(far[0], far[3])
    other = embed(torch.tensor([0, 7]), torch.tensor([False, False]))
    assert torch.equal(other[0], other[1])
    one_hot = torch.nn.functional.one_hot(torch.tensor(OTHER_CHAIN), OTHER_CHAIN + 1).float()
    torch.testing.assert_close(other[0], embed.linear(one_hot))


def test_it_runs_on_a_mac():
    one = backbone(7)
    _, order, noise = drawn(1, 7)
    expected, _ = tiny_mpnn().sample(encoded(tiny_mpnn(), one), order, noise, 1.0)
    with StandIn() as mac:
        model = tiny_mpnn().to("mps")
        there = torch.ones(1, 7, dtype=torch.bool)
        seen = model.encode(*(x.to("mps") for x in (one.atoms[None], there, one.numbers[None], one.chains[None])))
        made, _ = model.sample(seen, order.to("mps"), noise.to("mps"), 1.0)
        assert torch.equal(made.cpu(), expected)
        assert "gather" in mac.used
