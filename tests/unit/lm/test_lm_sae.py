"""The sparse autoencoder: its formula by hand, what it learns, and that nothing else is touched."""

import pytest
import torch

from expunge.lm.sae import Autoencoder, _step, largest, train

SETTINGS = {"features": 24, "k": 2, "steps": 400, "batch_size": 64, "lr": 5e-3, "seed": 0}


@pytest.fixture(scope="module")
def states():
    """Sums of two of twelve directions in eight dimensions, far from the origin."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(12, 8, generator=draw), dim=1)
    pairs = torch.stack([torch.randperm(12, generator=draw)[:2] for _ in range(500)])
    amounts = 3 + torch.rand(500, 2, generator=draw)
    return (amounts[..., None] * directions[pairs]).sum(1) + 10.0


@pytest.fixture(scope="module")
def trained(states):
    return train(states, **SETTINGS)


def test_the_largest_are_kept_and_what_is_negative_is_cut():
    drive = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-1.0, -2.0, -3.0, 0.5]])
    assert largest(drive, 2).tolist() == [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.5]]
    assert largest(drive, 9).tolist() == [[3.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.5]]


def test_encoding_and_decoding_by_hand():
    coder = Autoencoder(
        encoder=torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        bias=torch.tensor([0.0, 0.0, -1.0]),
        decoder=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        centre=torch.tensor([1.0, 1.0]),
        k=1,
    )
    drive = coder.drive(torch.tensor([[3.0, 2.0]]))
    assert drive.tolist() == [[2.0, 2.0, 2.0]]
    drive[..., 2] = 5.0
    assert coder.decode(coder.code(drive))[0].tolist() == pytest.approx([4.0, 5.0])


def test_it_learns_to_give_the_states_back(states, trained):
    assert trained.error(states) < 0.05
    assert train(states, **SETTINGS | {"steps": 1}).error(states) > 0.2
    again = trained.decode(trained.code(trained.drive(states)))
    lost = (states - again).square().sum() / (states - states.mean(0)).square().sum()
    assert trained.error(states) == pytest.approx(float(lost))


def test_codes_are_sparse_and_columns_of_unit_length(states, trained):
    code = trained.code(trained.drive(states))
    assert int((code > 0).sum(1).max()) <= 2
    assert float((code > 0).float().sum(1).mean()) > 1.5
    assert trained.decoder.norm(dim=1).tolist() == pytest.approx([1.0] * 24)


def test_the_scale_of_the_states_changes_nothing(states, trained):
    big = train(states * 1000, **SETTINGS)
    assert big.error(states * 1000) == pytest.approx(trained.error(states), abs=0.02)


def test_a_feature_that_never_fires_is_moved_only_once_it_counts_as_dead(states):
    centred = (states - states.mean(0))[:64]
    decoder = torch.cat([torch.eye(8), -torch.eye(8), torch.full((1, 8), 8**-0.5)])
    for dead in (False, True):
        encoder = decoder.clone()
        encoder[-1] *= 1e-3  # always outdone by others
        before = encoder[-1].clone()
        weights = [encoder, torch.zeros(17), decoder.clone(), torch.zeros(8)]
        weights = [weight.requires_grad_() for weight in weights]
        marked = torch.zeros(17, dtype=torch.bool)
        marked[-1] = dead
        fired = _step(centred, weights, 2, marked, torch.optim.SGD(weights, lr=1.0))
        assert fired[:-1].any()
        assert not fired[-1]
        assert torch.equal(encoder[-1].detach(), before) != dead


def test_the_seed_alone_decides_and_the_global_state_is_left_alone(states, trained):
    before = torch.get_rng_state()
    torch.manual_seed(123)
    with torch.no_grad():
        again = train(states, **SETTINGS)
    torch.set_rng_state(before)
    for name in ("encoder", "bias", "decoder", "centre"):
        assert torch.equal(getattr(again, name), getattr(trained, name))
        assert not getattr(again, name).requires_grad
    other = train(states, **SETTINGS | {"seed": 1, "steps": 5})
    assert not torch.equal(other.encoder, train(states, **SETTINGS | {"steps": 5}).encoder)
    train(states, **SETTINGS | {"steps": 2})
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_states_are_given_back_as_they_are():
    states = torch.full((10, 4), 7.0)
    coder = train(states, **SETTINGS | {"features": 8, "steps": 3})
    assert coder.error(states) == 0.0
    assert torch.isfinite(coder.decode(coder.code(coder.drive(states)))).all()
