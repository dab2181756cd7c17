"""The token flow: marginals of the path, and jump processes that keep to them."""

import pytest
import torch

from app.chem.residues import MASK_TOKEN, NUM_AATYPES, NUM_TOKENS
from app.flow import tokens
from tests.factories import generator

MANY = 100_000


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed))


def one_hot(token) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(token), NUM_TOKENS).double()


# The path


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_a_token_is_masked_with_probability_one_minus_t(t):
    clean = torch.randint(NUM_AATYPES, (1, MANY), generator=generator())
    noisy = tokens.corrupt(clean, torch.tensor([[t]]), "masking", uniform(1, MANY), uniform(1, MANY, seed=1))
    masked = noisy == MASK_TOKEN
    assert masked.float().mean().item() == pytest.approx(1 - t, abs=0.01)
    assert torch.equal(noisy[~masked], clean[~masked])


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 1.0])
def test_uniform_noise_keeps_a_token_with_probability_t_and_by_chance(t):
    clean = torch.full((1, MANY), 7)
    noisy = tokens.corrupt(clean, torch.tensor([[t]]), "uniform", uniform(1, MANY), uniform(1, MANY, seed=1))
    found = torch.bincount(noisy[0], minlength=NUM_TOKENS) / MANY
    expected = t * one_hot(7) + (1 - t) / NUM_AATYPES * (torch.arange(NUM_TOKENS) != MASK_TOKEN)
    torch.testing.assert_close(found.double(), expected, atol=0.01, rtol=0)
    assert found[MASK_TOKEN] == 0


def test_every_example_has_its_own_time():
    clean = torch.zeros(2, 1000, dtype=torch.int64)
    noisy = tokens.corrupt(clean, torch.tensor([[0.0], [1.0]]), "masking", uniform(2, 1000), uniform(2, 1000))
    assert (noisy[0] == MASK_TOKEN).all()
    assert (noisy[1] == 0).all()


def test_noise_stays_in_range_at_the_ends_of_the_unit_interval():
    ends = torch.tensor([0.0, 1 - 2**-24, 1.0])
    assert tokens.noise_tokens("uniform", ends).tolist() == [0, 19, 19]
    assert tokens.noise_tokens("masking", ends).tolist() == [MASK_TOKEN] * 3


# The plain step


def transition(posterior: torch.Tensor, t: float, step: float, kind: str, noise: float) -> torch.Tensor:
    """Matrix [21, 21] of one step: row = token at t. posterior: [21, 20], p(clean | token at t)."""
    return tokens.step_probabilities(
        posterior.log()[None],
        torch.arange(NUM_TOKENS)[None],
        tokens.rates(t, step, noise, kind),
        kind=kind,
        temperature=1.0,
    )[0].double()


@pytest.mark.parametrize("noise", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["masking", "uniform"])
def test_a_step_of_the_true_process_keeps_to_the_marginals_of_the_path(kind, t, noise):
    """Kolmogorov's forward equation: with the true posterior, marginals at t go over into those at t + step.

    The marginals are linear in t, so an Euler step is exact as long as no probability had to be cut.
    """
    clean = torch.softmax(2 * torch.randn(NUM_AATYPES, generator=generator(1)).double(), -1)
    of_clean = torch.cat([torch.eye(NUM_AATYPES), torch.zeros(NUM_AATYPES, 1)], -1).double()
    if kind == "masking":
        start = one_hot(MASK_TOKEN)
    else:
        start = (torch.arange(NUM_TOKENS) != MASK_TOKEN).double() / NUM_AATYPES

    def path(at: float) -> torch.Tensor:
        """p(token | clean) at a time, [20, 21]."""
        return at * of_clean + (1 - at) * start

    joint = clean[:, None] * path(t)
    marginal = joint.sum(0)
    posterior = torch.where(marginal > 0, joint / marginal, 1 / NUM_AATYPES).T
    step = 1e-4
    after = marginal @ transition(posterior, t, step, kind, noise)
    torch.testing.assert_close(after, clean @ path(t + step), atol=2e-7, rtol=0)


@pytest.mark.parametrize("resample", [False, True])
@pytest.mark.parametrize("kind", ["masking", "uniform"])
@pytest.mark.parametrize(("t", "step"), [(0.01, 0.01), (0.5, 0.1), (0.98, 0.02), (0.99, 0.01)])
def test_step_probabilities_are_weights_of_a_draw(kind, t, step, resample):
    """Each lies in [0, 1]; steps too large for their rates sum to more than one, and `draw` takes any sum."""
    logits = 5 * torch.randn(3, 40, NUM_TOKENS, generator=generator())
    current = torch.randint(NUM_TOKENS if kind == "masking" else NUM_AATYPES, (3, 40), generator=generator())
    probabilities = tokens.step_probabilities(
        logits, current, tokens.rates(t, step, 20.0, kind), kind=kind, temperature=0.1, resample_unmasked=resample
    )
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    assert (probabilities.sum(-1) > 1 - 1e-5).all()
    if kind == "uniform":
        assert (probabilities[..., MASK_TOKEN] == 0).all()


@pytest.mark.parametrize("kind", ["masking", "uniform"])
def test_probabilities_of_small_steps_sum_to_one(kind):
    logits, current = torch.randn(3, 40, NUM_TOKENS), torch.randint(NUM_AATYPES, (3, 40))
    rates = tokens.rates(0.5, 0.01, 1.0, kind)
    probabilities = tokens.step_probabilities(logits, current, rates, kind=kind, temperature=1.0)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 40))


def test_mended_unmasked_tokens_move_to_the_mask_only():
    logits = torch.randn(1, NUM_TOKENS, NUM_TOKENS, generator=generator())
    current = torch.arange(NUM_TOKENS)[None]
    rates, how = tokens.rates(0.4, 0.01, 3.0), {"kind": "masking", "temperature": 1.0}
    mended = tokens.step_probabilities(logits, current, rates, **how)[0]
    quirk = tokens.step_probabilities(logits, current, rates, resample_unmasked=True, **how)[0]
    assert torch.equal(mended[MASK_TOKEN], quirk[MASK_TOKEN])
    for token in range(NUM_AATYPES):
        expected = 0.97 * one_hot(token) + 0.03 * one_hot(MASK_TOKEN)
        torch.testing.assert_close(mended[token].double(), expected, atol=1e-6, rtol=0)
        assert (quirk[token][:NUM_AATYPES] > 0).all()


def test_the_last_plain_step_unmasks_everything_without_noise():
    logits = torch.randn(2, 50, NUM_TOKENS, generator=generator())
    masked = torch.full((2, 50), MASK_TOKEN)
    after = tokens.plain_step(
        logits, masked, tokens.rates(0.9, 0.1, 0.0), uniform(2, 50), kind="masking", temperature=1.0
    )
    assert (after != MASK_TOKEN).all()


def test_arguments_are_not_changed():
    logits, current = torch.randn(2, 6, NUM_TOKENS), torch.full((2, 6), MASK_TOKEN)
    before, tokens_before = logits.clone(), current.clone()
    rates = tokens.rates(0.5, 0.1, 2.0)
    tokens.plain_step(logits, current, rates, uniform(2, 6), kind="masking", temperature=0.1)
    tokens.purity_step(logits, current, rates, uniform(4, 2, 6), mask=torch.ones(2, 6), temperature=0.1)
    assert torch.equal(logits, before)
    assert torch.equal(current, tokens_before)


def test_the_mask_column_of_the_logits_is_ignored():
    logits = torch.randn(1, 5, NUM_TOKENS)
    estimate = tokens.residue_probabilities(logits, 0.5)
    assert (estimate[..., MASK_TOKEN] == 0).all()
    torch.testing.assert_close(estimate[..., :NUM_AATYPES], torch.softmax(logits[..., :NUM_AATYPES] / 0.5, -1))
    assert torch.equal(tokens.residue_probabilities(logits[..., :NUM_AATYPES], 0.5), estimate)


# Draws


def test_draws_have_the_frequencies_of_the_probabilities():
    probabilities = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    drawn = tokens.draw(probabilities.expand(1, MANY, 6), uniform(1, MANY))
    found = torch.bincount(drawn[0], minlength=6) / MANY
    torch.testing.assert_close(found, probabilities, atol=0.01, rtol=0)
    torch.testing.assert_close(tokens.draw(7 * probabilities.expand(1, 9, 6), uniform(1, 9)), drawn[:, :9])


def test_what_has_no_probability_is_never_drawn():
    ends = torch.tensor([[0.0, 2**-24, 1 - 2**-24]])
    probabilities = torch.softmax(10 * torch.randn(500, 1, 1, NUM_AATYPES, generator=generator()), -1)
    probabilities = torch.nn.functional.pad(probabilities, (1, 1)).expand(500, 1, 3, NUM_TOKENS + 1)
    drawn = torch.stack([tokens.draw(p, ends) for p in probabilities])
    assert ((drawn > 0) & (drawn <= NUM_AATYPES)).all()


# The purity step

WARM = {"temperature": 1.0}


@pytest.mark.parametrize(("t", "step", "noise"), [(0.1, 0.05, 0.0), (0.5, 0.01, 10.0)])
def test_the_number_unmasked_is_binomial(t, step, noise):
    length, runs = 40, 4000
    masked = torch.full((runs, length), MASK_TOKEN)
    draws = uniform(4, runs, length)
    draws[3] = 1.0  # nothing is masked again
    logits = torch.randn(runs, length, NUM_TOKENS, generator=generator())
    after = tokens.purity_step(
        logits, masked, tokens.rates(t, step, noise), draws, mask=torch.ones(runs, length), temperature=1.0
    )
    number = (after != MASK_TOKEN).sum(-1).double()
    p = step * (1 + noise * t) / (1 - t)
    assert number.mean().item() == pytest.approx(length * p, rel=0.05)
    assert number.var().item() == pytest.approx(length * p * (1 - p), rel=0.1)


def test_a_purity_step_keeps_to_the_share_of_masked_tokens():
    t, step, noise, shape = 0.4, 0.002, 20.0, (2000, 50)
    current = torch.where(uniform(*shape) < 1 - t, MASK_TOKEN, 3)
    after = tokens.purity_step(
        torch.randn(*shape, NUM_TOKENS, generator=generator()),
        current, tokens.rates(t, step, noise), uniform(4, *shape, seed=1), mask=torch.ones(shape), temperature=1.0,
    )  # fmt: skip
    change = (after == MASK_TOKEN).double().mean() - (current == MASK_TOKEN).double().mean()
    flow = step * (1 + 2 * noise * t)  # tokens that changed either way set the error of the mean
    assert change.item() == pytest.approx(-step, abs=step * 0.1 + 4 * (flow / 100_000) ** 0.5)


def test_the_most_certain_positions_come_first():
    logits = torch.zeros(1, 6, NUM_TOKENS)
    logits[0, :, 4] = torch.tensor([1.0, 5.0, 3.0, 0.5, 4.0, 2.0])
    draws = uniform(4, 1, 6)
    draws[0] = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])  # three of six are unmasked
    masked = torch.full((1, 6), MASK_TOKEN)
    after = tokens.purity_step(logits, masked, tokens.rates(0.5, 0.1, 0.0), draws, mask=torch.ones(1, 6), **WARM)
    assert (after != MASK_TOKEN).tolist() == [[False, True, True, False, True, False]]


def test_only_masked_positions_that_take_part_are_unmasked():
    current = torch.tensor([[5, MASK_TOKEN, MASK_TOKEN, 7]])
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    logits = torch.randn(1, 4, NUM_TOKENS)
    after = tokens.purity_step(logits, current, tokens.rates(0.9, 0.1, 0.0), uniform(4, 1, 4), mask=mask, **WARM)
    assert after[0, [0, 2, 3]].tolist() == [5, MASK_TOKEN, 7]
    assert after[0, 1] != MASK_TOKEN


def test_unmasked_tokens_are_drawn_at_the_temperature():
    logits = torch.randn(NUM_TOKENS, generator=generator())
    masked = torch.full((1, MANY), MASK_TOKEN)
    after = tokens.purity_step(
        logits.expand(1, MANY, NUM_TOKENS), masked, tokens.rates(0.9, 0.1, 0.0), uniform(4, 1, MANY),
        mask=torch.ones(1, MANY), temperature=0.5,
    )  # fmt: skip
    found = torch.bincount(after[0], minlength=NUM_TOKENS) / MANY
    torch.testing.assert_close(found, tokens.residue_probabilities(logits, 0.5), atol=0.01, rtol=0)


def test_tokens_are_masked_again_at_the_rate_of_the_noise():
    current = torch.full((1, MANY), 3)
    after = tokens.purity_step(
        torch.randn(1, MANY, NUM_TOKENS), current, tokens.rates(0.5, 0.01, 20.0), uniform(4, 1, MANY),
        mask=torch.ones(1, MANY), temperature=1.0,
    )  # fmt: skip
    assert (after == MASK_TOKEN).float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_near_ties_do_not_hang_on_rounding():
    """At low temperature certainties are all about 1; what batch mates change in the last digits decides nothing."""

    def nearly_sure(seed: int) -> torch.Tensor:
        """The most likely type has all but some 1e-5 of the probability."""
        logits = torch.zeros(200, 30, NUM_TOKENS)
        logits[..., 4] = (19 / (1e-5 * (0.5 + uniform(200, 30, seed=seed)))).log()
        return logits

    masked, mask, draws = torch.full((200, 30), MASK_TOKEN), torch.ones(200, 30), uniform(4, 200, 30)
    rates = tokens.rates(0.1, 0.2, 0.0)
    first, second = (
        tokens.purity_step(nearly_sure(seed), masked, rates, draws, mask=mask, temperature=1.0) for seed in (1, 2)
    )
    assert (first != MASK_TOKEN).any()
    assert torch.equal(first != MASK_TOKEN, second != MASK_TOKEN)


def test_ties_are_broken_at_random_not_by_position():
    logits = torch.zeros(2000, 10, NUM_TOKENS)
    logits[..., 2] = 100.0
    masked = torch.full((2000, 10), MASK_TOKEN)
    rates, mask = tokens.rates(0.1, 0.18, 0.0), torch.ones(2000, 10)
    after = tokens.purity_step(logits, masked, rates, uniform(4, 2000, 10), mask=mask, temperature=0.1)
    shares = (after != MASK_TOKEN).float().mean(0)
    torch.testing.assert_close(shares, torch.full((10,), 0.2), atol=0.04, rtol=0)
