import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from mat2spec.config import Mat2SpecConfig
from mat2spec.model.mixture import CrystalMixture, Mixture, SpectrumMixture, alignment, tiled_pairs

CRYSTALS, LATENT = 3, 16


def mixtures(bins: int, components: int) -> tuple[Mixture, Mixture]:
    """Random mixtures of spectra and of crystals, in double precision."""
    torch.manual_seed(bins)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, dtype=torch.float64)

    spectra = Mixture(random(CRYSTALS, bins).softmax(-1), random(bins, LATENT), random(bins, LATENT))
    crystals = Mixture(
        random(CRYSTALS, components).softmax(-1),
        random(CRYSTALS, components, LATENT),
        random(CRYSTALS, components, LATENT),
    )
    return spectra, crystals


def gaussian(mixture: Mixture, *index: int) -> Independent:
    return Independent(Normal(mixture.means[index], (mixture.log_variances[index] / 2).exp()), 1)


@pytest.mark.parametrize(("bins", "components"), [(51, 10), (128, 10)])
def test_alignment_is_the_divergence_over_every_pair_of_gaussians(bins, components):
    """510 pairs, and 1,280: the published code sees only 640 of these, those of equal parity."""
    spectra, crystals = mixtures(bins, components)
    expected = 0.0
    for c in range(CRYSTALS):
        for bin_ in range(bins):
            for k in range(components):
                p, q = gaussian(spectra, bin_), gaussian(crystals, c, k)
                both_ways = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
                expected += spectra.weights[c, bin_] * crystals.weights[c, k] * both_ways / CRYSTALS
    assert alignment(spectra, crystals).item() == pytest.approx(float(expected), rel=1e-10)


def test_published_code_counts_every_pair_of_51_bins_once():
    assert tiled_pairs(51, 10).equal(torch.ones(51, 10))


def test_published_code_counts_pairs_of_equal_parity_of_128_bins_twice_and_no_others():
    counts = tiled_pairs(128, 10)
    equal_parity = (torch.arange(128)[:, None] - torch.arange(10)) % 2 == 0
    assert equal_parity.sum() == 640
    assert counts.equal(2.0 * equal_parity)


@pytest.mark.parametrize("bins", [51, 128])
def test_published_alignment_runs_over_two_tiled_lists_side_by_side(bins):
    spectra, crystals = mixtures(bins, 10)
    expected = 0.0
    for c in range(CRYSTALS):
        for bin_, k in zip(list(range(bins)) * 10, list(range(10)) * bins, strict=True):
            p, q = gaussian(spectra, bin_), gaussian(crystals, c, k)
            both_ways = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
            expected += spectra.weights[c, bin_] * crystals.weights[c, k] * both_ways / CRYSTALS
    ours = alignment(spectra, crystals, tiled_pairs(bins, 10).double()).item()
    assert ours == pytest.approx(float(expected), rel=1e-10)
    assert (ours == pytest.approx(alignment(spectra, crystals).item(), rel=1e-10)) == (bins == 51)


def test_equal_mixtures_of_one_gaussian_are_aligned():
    mean, log_variance = torch.randn(1, LATENT), torch.randn(1, LATENT)
    spectra = Mixture(torch.ones(1, 1), mean, log_variance)
    crystals = Mixture(torch.ones(1, 1), mean[None], log_variance[None])
    assert alignment(spectra, crystals).item() == pytest.approx(0, abs=1e-4)  # float32 sums of terms near 10


@pytest.mark.parametrize("which", ["spectra", "crystals"])
def test_draws_have_the_distribution_of_a_convex_combination(which):
    """z = Σ wₖ zₖ with each zₖ drawn from its own Gaussian, against the single draw of the same distribution."""
    mixture = mixtures(51, 10)[which == "crystals"]
    draws = 20_000
    torch.manual_seed(0)
    ours = torch.stack([mixture.sample() for _ in range(draws)])
    components = torch.stack(
        [
            (
                mixture.weights[..., None]
                * (mixture.means + (mixture.log_variances / 2).exp() * torch.randn(CRYSTALS, *mixture.means.shape[-2:]))
            ).sum(-2)
            for _ in range(draws)
        ]
    )
    error = 5 * (components.var(0) / draws).sqrt()  # five standard errors of a mean
    assert ((ours.mean(0) - components.mean(0)).abs() < 2**0.5 * error).all()
    torch.testing.assert_close(ours.var(0), components.var(0), rtol=5 * 2 / draws**0.5, atol=0)  # of a variance
    torch.testing.assert_close(ours.mean(0), mixture.mean(), rtol=0, atol=error.max().item())


def test_noise_is_fresh_for_each_crystal():
    spectra, _ = mixtures(51, 10)
    alike = Mixture(spectra.weights[:1].expand(CRYSTALS, -1), spectra.means, spectra.log_variances)
    z = alike.sample()
    assert not torch.isclose(z[0], z[1]).any()


def test_shared_noise_gives_crystals_of_equal_weights_equal_draws():
    spectra, _ = mixtures(51, 10)
    weights = spectra.weights[[0, 0, 1]]
    alike = Mixture(weights, spectra.means, spectra.log_variances)
    z, again = alike.sample(shared=True), alike.sample(shared=True)
    torch.testing.assert_close(z[0], z[1])
    assert not torch.isclose(z[0], z[2]).any()
    assert not torch.isclose(z, again).any(), "the next draw is another"


def test_shared_draws_have_the_mean_and_the_variance_of_a_convex_combination():
    spectra, _ = mixtures(51, 10)
    draws = 5_000
    torch.manual_seed(0)
    z = torch.stack([spectra.sample(shared=True) for _ in range(draws)])
    variance = spectra.weights.square() @ spectra.log_variances.exp()
    assert ((z.mean(0) - spectra.mean()).abs() < 5 * (variance / draws).sqrt()).all(), "five standard errors of a mean"
    torch.testing.assert_close(
        z.var(0), variance, rtol=5 * (2 / draws) ** 0.5, atol=0
    )  # five standard errors of a variance


def test_mixtures_have_the_published_shapes_and_weights_that_add_to_one():
    config = Mat2SpecConfig()
    of_crystals = CrystalMixture(config)(torch.randn(CRYSTALS, config.width))
    of_spectra = SpectrumMixture(config, 51)(torch.rand(CRYSTALS, 51))
    assert (of_crystals.weights.shape, of_crystals.means.shape) == ((CRYSTALS, 10), (CRYSTALS, 10, 128))
    assert (of_spectra.weights.shape, of_spectra.means.shape) == ((CRYSTALS, 51), (51, 128))
    for mixture in (of_crystals, of_spectra):
        assert mixture.means.shape == mixture.log_variances.shape
        torch.testing.assert_close(mixture.weights.sum(1), torch.ones(CRYSTALS))
