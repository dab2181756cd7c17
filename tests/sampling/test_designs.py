from app.sampling.designs import batches, designs_of, seed_of
from app.sampling.given import Given
from app.sampling.request import Request
from tests.factories import protein_batch


def unconditional(lengths, each=1, seed=0):
    return designs_of(Request(task="unconditional", out="x", lengths=lengths, samples_per_length=each, seed=seed), [])


def given(name, length):
    clean = protein_batch(length=length)
    numbers = clean.res_idx[0]
    return Given(name, name, clean.aatypes_1[0], clean.chain_idx[0], numbers, numbers.numpy(), ("A", "B"))


def test_ids_and_lengths():
    made = unconditional([60, 80], each=2)
    assert [(design.id, design.length) for design in made] == [
        ("len60_0", 60),
        ("len60_1", 60),
        ("len80_0", 80),
        ("len80_1", 80),
    ]
    assert [design.id for design in unconditional([60, 80, 60])] == ["len60_0", "len80_0", "len60_1"]
    request = Request(task="forward_folding", out="x", input="y", samples=2)
    made = designs_of(request, [given("1abc_A", 10), given("1abc_B", 12)])
    assert [design.id for design in made] == ["1abc_A_0", "1abc_A_1", "1abc_B_0", "1abc_B_1"]
    assert [design.length for design in made] == [10, 10, 12, 12]


def test_designs_of_several_chains():
    made = unconditional(["60+40", 80, " 60+ 40", "100"], each=1)
    assert [design.id for design in made] == ["len60-40_0", "len80_0", "len60-40_1", "len100_0"]
    assert [design.length for design in made] == [100, 80, 100, 100]
    assert [design.layout.chains for design in made] == [{"A": 60, "B": 40}, {"A": 80}, {"A": 60, "B": 40}, {"A": 100}]
    layout = made[0].layout
    assert layout.chain_idx.tolist() == [1] * 60 + [2] * 40
    assert layout.res_idx.tolist() == layout.numbers.tolist() == [*range(1, 61), *range(1, 41)]
    assert made[1].seed == unconditional([80])[0].seed


def test_a_seed_depends_on_the_runs_seed_and_the_id_only():
    few = {design.id: design.seed for design in unconditional([80])}
    many = {design.id: design.seed for design in unconditional([60, 80], each=20)}
    assert few.items() <= many.items()
    assert len(set(many.values())) == 40
    assert not set(many.values()) & {design.seed for design in unconditional([60, 80], each=20, seed=1)}
    assert seed_of(1, "len60_0") == 170635982739808  # may never change: published designs are made again by it
    assert max(many.values()) < 2**48


def test_batches_hold_one_length_within_their_bounds():
    designs = unconditional([80, 60, 100], each=7)
    made = list(batches(designs, lambda length: min(4, 3 * 80**2 // length**2)))
    assert [(batch[0].length, len(batch)) for batch in made] == [
        *[(60, 4), (60, 3)],
        *[(80, 3), (80, 3), (80, 1)],
        *[(100, 1)] * 7,
    ]
    assert all(design.length == batch[0].length for batch in made for design in batch)
    assert sorted(design.id for batch in made for design in batch) == sorted(design.id for design in designs)
