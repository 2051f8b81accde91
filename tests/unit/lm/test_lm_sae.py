"""The sparse autoencoder: its formula by hand, what it learns, and that nothing else is touched."""

import sys
from pathlib import Path

import pytest
import torch

from expunge.lm.hooks import forward_to
from expunge.lm.sae import Autoencoder, largest, spliced, train
from expunge.lm.sae.training import across, revived, step
from expunge.lm.subject import Subject

sys.path.insert(0, str(Path(__file__).parents[2] / "methods"))

from edit_rig import knowing, people, said

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


@pytest.fixture(scope="module")
def model_states():
    """[N, 64]: outputs of the second block of a model that knows facts, without first tokens."""
    subject, rows = knowing(), people()
    told = [subject.encoder.encode(row.turn).ids for row in (*rows.forget, *rows.retain)]
    ids = torch.tensor(told)
    with torch.no_grad():
        return forward_to(subject.model, 1, input_ids=ids)[:, 1:].flatten(0, 1)


def by_hand(**more) -> Autoencoder:
    return Autoencoder(
        encoder=torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        bias=torch.tensor([0.0, 0.0, -1.0]),
        decoder=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        centre=torch.tensor([1.0, 1.0]),
        **more,
    )


def test_the_largest_are_kept_and_what_is_negative_is_cut():
    drive = torch.tensor([[3.0, -1.0, 2.0, 1.0], [-1.0, -2.0, -3.0, 0.5]])
    assert largest(drive, 2).tolist() == [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.5]]
    assert largest(drive, 9).tolist() == [[3.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.5]]


def test_encoding_and_decoding_by_hand():
    coder = by_hand(k=1)
    drive = coder.drive(torch.tensor([[3.0, 2.0]]))
    assert drive.tolist() == [[2.0, 2.0, 2.0]]
    drive[..., 2] = 5.0
    assert coder.decode(coder.code(drive))[0].tolist() == pytest.approx([4.0, 5.0])


def test_each_activation_by_hand():
    drive = torch.tensor([3.0, -1.0, 0.5])
    relu = by_hand(activation="relu")
    jump = by_hand(activation="jumprelu", threshold=torch.tensor([1.0, 0.0, 0.6]))
    assert relu.code(drive).tolist() == [3.0, 0.0, 0.5]
    assert jump.code(drive).tolist() == [3.0, 0.0, 0.0]
    assert jump.code(torch.tensor([1.0, -0.5, 0.61])).tolist() == pytest.approx([0.0, 0.0, 0.61])
    below = by_hand(activation="jumprelu", threshold=torch.tensor([1.0, -2.0, 0.6]))
    assert below.code(drive).tolist() == [3.0, 0.0, 0.0]  # nothing is negative


def test_a_graded_code_has_a_slope_wherever_the_drive_is_positive():
    """Top-k: what is outdone counts as it is. JumpReLU: 0 below the threshold, with a slope."""
    start = torch.tensor([3.0, -1.0, 0.5])
    values = {}
    for name, more in {
        "topk": {"k": 1},
        "relu": {"activation": "relu"},
        "jumprelu": {"activation": "jumprelu", "threshold": torch.tensor([1.0, 1.0, 1.0])},
    }.items():
        drive = start.clone().requires_grad_()
        code = by_hand(**more).graded(drive)
        code.sum().backward()
        values[name] = code.tolist()
        assert drive.grad.tolist() == [1.0, 0.0, 1.0], name
    assert values == {"topk": [3, 0, 0.5], "relu": [3, 0, 0.5], "jumprelu": [3, 0, 0]}
    drive = start.clone().requires_grad_()
    by_hand(k=1).code(drive).sum().backward()
    assert drive.grad.tolist() == [1.0, 0.0, 0.0]  # the trap


def test_some_latents_get_what_they_get_among_all():
    coder = by_hand(activation="jumprelu", threshold=torch.tensor([1.0, 2.0, 0.6]))
    some = coder.only(torch.tensor([2, 0]))
    states = torch.tensor([[3.0, 2.0], [0.5, 4.0]])
    assert torch.equal(some.drive(states), coder.drive(states)[:, [2, 0]])
    assert some.threshold.tolist() == pytest.approx([0.6, 1.0])
    assert some.to(torch.float64).encode(states).dtype == torch.float64


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
    assert trained.decoder.norm(dim=1).tolist() == pytest.approx([1.0] * 24, abs=1e-5)


def test_relu_is_made_sparse_by_the_length_of_its_code(states):
    settings = {k: v for k, v in SETTINGS.items() if k != "k"} | {"activation": "relu"}
    dense, sparse = (train(states, **settings, sparsity=weight) for weight in (0.0, 1.0))
    fires = [float((one.encode(states) > 0).float().sum(1).mean()) for one in (dense, sparse)]
    assert dense.error(states) < 0.02
    assert sparse.error(states) < 0.3
    assert fires[1] < 0.6 * fires[0]
    assert sparse.decoder.norm(dim=1).tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    with pytest.raises(ValueError, match="jumprelu"):
        train(states, **settings | {"activation": "jumprelu"})


def test_the_scale_and_the_place_of_the_states_change_nothing(states, trained):
    """Mean and scale are folded back: latents are measured as the states are."""
    far = states * 1000 - 7e4
    big = train(far, **SETTINGS)
    assert big.error(far) == pytest.approx(trained.error(states), abs=0.02)
    assert float(big.encode(far).max()) == pytest.approx(
        1000 * float(trained.encode(states).max()), rel=0.05
    )


def test_bfloat16_states_are_trained_on_in_float32(states):
    coder = train(states.bfloat16(), **SETTINGS | {"steps": 3})
    assert coder.encoder.dtype == torch.float32
    assert coder.decode(coder.encode(states.bfloat16())).dtype == torch.float32


def test_what_points_along_a_row_is_taken_out_of_its_gradient():
    rows = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    rows.requires_grad_()
    rows.grad = torch.tensor([[5.0, 0.0], [2.0, 3.0]])
    across(rows)
    assert rows.grad[0].tolist() == pytest.approx([5 - 3 * 0.6, -3 * 0.8])
    assert rows.grad[1].tolist() == pytest.approx([0.0, 3.0])


def test_the_dead_latents_that_get_most_are_asked_to_explain_the_rest():
    drive = torch.tensor([[5.0, -1.0, 3.0, -2.0]])
    dead = torch.tensor([False, True, True, True])
    assert revived(drive, dead, 2).tolist() == [[0.0, -1.0, 3.0, 0.0]]
    assert revived(drive, dead, 9).tolist() == [[0.0, -1.0, 3.0, -2.0]]


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
        coder = Autoencoder(*weights, k=2)
        fired = step(centred, coder, marked, torch.optim.SGD(weights, lr=1.0))
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


def test_two_d_latents_of_which_eight_fire_give_a_model_s_states_back(model_states):
    """The card's check; spliced in, the model still knows what it knew."""
    coder = train(model_states, features=128, seed=0)
    assert coder.error(model_states) < 0.05
    assert int((coder.encode(model_states) > 0).sum(1).max()) <= 8
    model, tokenizer, rows = knowing().model, knowing().tokenizer, people()
    with spliced(model, 1, coder):
        for part in (rows.forget, rows.retain):
            assert said(Subject(model, tokenizer), part) >= 0.9
            scored = Subject(model, tokenizer).score([row.turn for row in part])
            assert sum(bool(one.hit[0]) for one in scored) >= 0.9 * len(part)
    nothing = Autoencoder(
        coder.encoder, coder.bias, torch.zeros_like(coder.decoder), coder.centre, coder.k
    )
    with spliced(model, 1, nothing):
        assert said(Subject(model, tokenizer), rows.retain) < 0.3
        scored = Subject(model, tokenizer).score([row.turn for row in rows.retain])
        assert sum(bool(one.hit[0]) for one in scored) < 0.3 * len(rows.retain)


def test_spliced_states_are_those_of_every_token_but_the_first(model_states):
    """Padded left or right, in a batch or alone, at once or token by token."""
    model = knowing().model
    coder = train(model_states, features=64, steps=40, seed=0)
    rows = [[1, 5, 9, 12], [1, 7, 11, 14, 20]]
    with spliced(model, 1, coder), torch.no_grad():
        alone = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
        right = torch.tensor([[*rows[0], 0], rows[1]])
        left = torch.tensor([[0, *rows[0]], rows[1]])
        masks = torch.tensor([[1, 1, 1, 1, 0], [1] * 5]), torch.tensor([[0, 1, 1, 1, 1], [1] * 5])
        padded = model(input_ids=right, attention_mask=masks[0]).logits
        torch.testing.assert_close(padded[0, :4], alone[0], rtol=1e-4, atol=1e-4)
        turned = model(
            input_ids=left, attention_mask=masks[1],
            position_ids=(masks[1].cumsum(1) - 1).clamp(min=0),
        ).logits  # fmt: skip
        torch.testing.assert_close(turned[0, 1:], alone[0], rtol=1e-4, atol=1e-4)
        cache, steps = None, []
        for at, token in enumerate(rows[1]):
            out = model(
                input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True,
                attention_mask=torch.ones(1, at + 1, dtype=torch.long),
            )  # fmt: skip
            cache = out.past_key_values
            steps.append(out.logits[0, -1])
        torch.testing.assert_close(torch.stack(steps), alone[1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([rows[1]])).logits[0]
    torch.testing.assert_close(plain[0], alone[1][0])
    assert not torch.allclose(plain[1:], alone[1][1:], atol=1e-3)
