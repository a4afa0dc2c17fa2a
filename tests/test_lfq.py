"""The quantizer against literal values and direct formulas."""

import itertools
import math

import pytest
import torch

from tokcodec.lfq import LFQ, bit_order, bits_from_tokens, entropy_terms, tokens_from_bits


def grid(values: list[float]) -> torch.Tensor:
    """A latent with the values as its channels, at one position."""
    return torch.tensor(values).view(1, -1, 1, 1, 1)


def test_bit_order_interleaves_groups_and_planes() -> None:
    order = bit_order(32, 2)
    assert sorted(order) == sorted((p, d) for p in range(2) for d in range(32))
    assert [(p, d // 8) for p, d in order[::8]] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (0, 3), (1, 1), (1, 2), (1, 3),
    ]  # fmt: skip
    assert bit_order(3, 1) == [(0, 0), (0, 1), (0, 2)]
    ranks = [d // 8 + 2 * p for p, d in bit_order(20, 3)]
    assert ranks == sorted(ranks)


def test_bit_order_refuses_nothing_to_order() -> None:
    with pytest.raises(ValueError, match="positive"):
        bit_order(0, 2)


def test_token_index_is_the_papers_formula() -> None:
    bits = torch.tensor([1, 0, 1, 1, 0]).view(1, 5, 1, 1, 1)
    assert tokens_from_bits(bits).item() == 0b01101 == 13
    assert tokens_from_bits(torch.ones(1, 18, 1, 1, 1)).item() == 2**18 - 1
    top = torch.zeros(1, 64, 1, 1, 1, dtype=torch.bool)
    top[:, 63] = True
    assert tokens_from_bits(top).numpy().view("uint64").item() == 2**63


@pytest.mark.parametrize("k", [1, 7, 18, 63, 64])
def test_tokens_and_bits_are_inverse(k: int) -> None:
    bits = torch.rand(2, k, 3, 4, 5, generator=torch.Generator().manual_seed(k)) > 0.5
    assert torch.equal(bits_from_tokens(tokens_from_bits(bits), k), bits)


@pytest.mark.parametrize("k", [0, 65])
def test_tokens_of_impossible_width_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=str(k)):
        bits_from_tokens(torch.zeros(1, 1, 1, 1, dtype=torch.long), k)
    if k > 64:
        with pytest.raises(ValueError, match=str(k)):
            tokens_from_bits(torch.zeros(1, k, 1, 1, 1))


def test_one_plane_is_the_papers_lfq() -> None:
    """RMS norm over the channels, sign, value -1 or +1, gradient straight through the sign."""
    torch.manual_seed(0)
    lfq = LFQ(dims=6, planes=1)
    u = torch.randn(2, 6, 1, 3, 3, requires_grad=True)
    result = lfq(u)
    assert torch.equal(result.latent.detach(), torch.where(u > 0, 1.0, -1.0))
    assert torch.equal(result.bits, u > 0)
    z = u / torch.sqrt((u**2).mean(dim=1, keepdim=True) + 1e-6)
    assert torch.allclose(result.margins, z)
    weight = torch.randn_like(u)
    (straight,) = torch.autograd.grad((result.latent * weight).sum(), u)
    (direct,) = torch.autograd.grad((z * weight).sum(), u)
    assert torch.allclose(straight, direct)


def test_planes_are_signs_of_what_is_left() -> None:
    lfq = LFQ(dims=1, planes=3)
    z = 0.3  # + 1/2, left -0.2; - 1/4, left 0.05; + 1/8
    bits = lfq.bits(grid([math.atanh(z)]))
    assert bits.flatten().tolist() == [True, False, True]
    assert lfq.latent(bits).item() == 0.5 - 0.25 + 0.125


@pytest.mark.parametrize("planes", [2, 3, 4])
def test_planes_together_are_a_uniform_quantizer(planes: int) -> None:
    z = torch.linspace(-0.9871, 0.9913, 400)  # none on a threshold
    u = torch.atanh(z).view(1, 1, 1, 1, -1)
    lfq = LFQ(dims=1, planes=planes)
    step = 2.0 ** (1 - planes)
    uniform = (torch.floor(z / step) + 0.5) * step
    assert torch.allclose(lfq.latent(lfq.bits(u)).flatten(), uniform)


def test_prefix_of_bits_has_the_value_of_its_planes() -> None:
    lfq = LFQ(dims=16, planes=2)
    u = torch.randn(1, 16, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    bits = lfq.bits(u)
    sign = torch.where(bits, 1.0, -1.0).flatten()
    for k in range(1, 33):
        expected = torch.zeros(16)
        for i, (plane, dim) in enumerate(bit_order(16, 2)[:k]):
            expected[dim] += sign[i] * 0.5 ** (plane + 1)
        assert torch.equal(lfq.latent(bits[:, :k]).flatten(), expected)
        assert torch.equal(lfq.latent(bits, torch.tensor([k])), lfq.latent(bits[:, :k]))


def test_more_bits_than_the_quantizer_has_are_refused() -> None:
    with pytest.raises(ValueError, match="not 9"):
        LFQ(dims=4, planes=2).latent(torch.zeros(1, 9, 1, 1, 1, dtype=torch.bool))


def test_dropped_dimensions_carry_no_gradient() -> None:
    lfq = LFQ(dims=16, planes=2)
    u = torch.zeros(1, 16, 1, 1, 1, requires_grad=True)
    lfq(u, kept=torch.tensor([8])).latent.sum().backward()
    assert u.grad is not None
    assert u.grad.flatten().tolist() == [1.0] * 8 + [0.0] * 8


def test_unquantized_samples_pass_as_they_are() -> None:
    lfq = LFQ(dims=4, planes=2)
    u = torch.randn(2, 4, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    latent = lfq(u, unquantized=torch.tensor([True, False])).latent
    assert torch.equal(latent[0], torch.tanh(u[0]))
    assert torch.equal(latent[1:], lfq.latent(lfq.bits(u[1:])))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_entropy_terms_equal_a_softmax_over_all_codes(temperature: float) -> None:
    """For K = 5: E[H(q|z)] over 2^5 codes exactly, and the entropies of the average code's bits."""
    k = 5
    z = torch.randn(3, k, 2, 2, 2, generator=torch.Generator().manual_seed(3))
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=k)))
    flat = z.permute(0, 2, 3, 4, 1).reshape(-1, k)
    q = torch.softmax(-torch.cdist(flat, codes).square() / temperature, dim=1)  # [positions, 2^K]
    single = -(q * q.clamp_min(1e-30).log()).sum(dim=1).mean() / k
    on = q.mean(dim=0) @ (codes > 0).float()
    average = -(on * on.log() + (1 - on) * (1 - on).log()).mean()
    ours = entropy_terms(z, temperature)
    assert torch.allclose(torch.stack(ours), torch.stack([single, average]), atol=1e-5)


def test_entropy_terms_at_their_extremes() -> None:
    sure = torch.full((1, 4, 1, 1, 2), 50.0)
    single, average = entropy_terms(sure)
    assert single.item() == pytest.approx(0, abs=1e-6)
    assert average.item() == pytest.approx(0, abs=1e-4)
    single, average = entropy_terms(torch.zeros(1, 4, 1, 1, 2))
    assert single.item() == average.item() == pytest.approx(math.log(2))
    sure[..., 1] *= -1  # each code certain, both equally often
    single, average = entropy_terms(sure)
    assert (single.item(), average.item()) == pytest.approx((0, math.log(2)), abs=1e-6)
