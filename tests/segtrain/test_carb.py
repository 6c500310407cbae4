from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain.carb import RegionBalancer, RegionLosses, region_losses, split_by_agreement, warmup_loss

GOLDEN = Path(__file__).parent / "golden"


def losses(consistent: float, inconsistent: float, area: float = 0.5) -> RegionLosses:
    return RegionLosses(*(torch.tensor(v) for v in (consistent, inconsistent, area, 1 - area)))


def test_ten_steps_equal_the_authors_code() -> None:
    golden = np.load(GOLDEN / "carb.npz")
    balancer = RegionBalancer(window=int(golden["queue"]))
    for t, (y0, x0, y1, x1) in enumerate(golden["box"]):
        logits = torch.from_numpy(golden["logits"][t])
        present = torch.from_numpy(golden["present"][t]).bool()
        local_logits = logits[:, :, y0:y1, x0:x1]
        whole, local = (torch.from_numpy(golden[name][t].astype(np.int64)) for name in ("glob", "local"))
        if t < golden["warmup"]:
            loss = warmup_loss(logits, whole) + warmup_loss(local_logits, local)
        else:
            g, l = region_losses(logits, whole, present), region_losses(local_logits, local, present)  # noqa: E741
            w = balancer.update(g)
            loss = g.consistent + w * g.inconsistent + l.consistent + w * l.inconsistent
            np.testing.assert_allclose(w, golden["coeff"][t], rtol=1e-4)
            np.testing.assert_allclose(g.consistent, golden["lc"][t], rtol=1e-4)
            np.testing.assert_allclose(g.inconsistent, golden["li"][t], rtol=1e-4)
        np.testing.assert_allclose(loss, golden["loss"][t], rtol=1e-4)


def test_split_leaves_out_ignored_pixels() -> None:
    pseudo = torch.tensor([[[0, 1, 255], [2, 2, 255]]])
    predicted = torch.tensor([[[0, 2, 0], [2, 1, 255]]])
    consistent, inconsistent = split_by_agreement(pseudo, predicted)
    assert consistent.tolist() == [[[True, False, False], [True, False, False]]]
    assert inconsistent.tolist() == [[[False, True, False], [False, True, False]]]


def test_prediction_is_filtered_by_the_classes_present() -> None:
    logits = torch.tensor([0.0, 1.0, 9.0]).view(1, 3, 1, 1)  # class 2 is best, and absent
    regions = region_losses(logits, torch.tensor([[[1]]]), torch.tensor([[True, True, False]]))
    assert regions.consistent_area == 1
    assert regions.inconsistent_area == 0


def test_region_means_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # pixel 0 predicts 0; pixel 1 is a tie, so 0
    regions = region_losses(logits, torch.tensor([[[0, 1]]]), torch.ones(1, 2, dtype=torch.bool))
    np.testing.assert_allclose(regions.consistent, np.log(1 + np.exp(-2)), rtol=1e-6)
    np.testing.assert_allclose(regions.inconsistent, np.log(2), rtol=1e-6)
    assert (regions.consistent_area, regions.inconsistent_area) == (0.5, 0.5)


def test_a_batch_without_valid_pixels_gives_zero_and_a_finite_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.full((1, 2, 2), 255)
    absent = torch.zeros(1, 3, dtype=torch.bool)
    regions = region_losses(logits, nothing, absent)
    (warmup_loss(logits, nothing) + regions.consistent + regions.inconsistent).backward()
    assert [v.item() for v in regions] == [0, 0, 0, 0]
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_image_without_labels_is_ignored_and_those_beside_it_are_not() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    pseudo = torch.randint(0, 3, (2, 4, 4))
    pseudo[1] = 255
    present = torch.tensor([[True, True, True], [False, False, False]])
    both = region_losses(logits, pseudo, present)
    alone = region_losses(logits[:1], pseudo[:1], present[:1])
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(a, b)
    (both.consistent + both.inconsistent).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()


def test_an_image_of_one_class_is_consistent_everywhere_whatever_the_student_says() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    regions = region_losses(logits, torch.full((1, 4, 4), 2), torch.tensor([[False, False, True]]))
    assert (regions.consistent_area, regions.inconsistent_area) == (1, 0)
    assert regions.inconsistent == 0
    torch.testing.assert_close(regions.consistent, warmup_loss(logits, torch.full((1, 4, 4), 2)))
    assert RegionBalancer().update(regions) == 1.0  # an empty queue: no ratio yet
    (regions.consistent + regions.inconsistent).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_an_empty_consistent_region_gives_zero_and_a_finite_gradient() -> None:
    logits = torch.tensor([[5.0, 0.0]] * 4).T.reshape(1, 2, 2, 2).clone().requires_grad_()
    regions = region_losses(logits, torch.ones(1, 2, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool))
    assert (regions.consistent, regions.consistent_area, regions.inconsistent_area) == (0, 0, 1)
    (regions.consistent + regions.inconsistent).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_an_empty_region_does_not_enter_its_queue() -> None:
    balancer = RegionBalancer(window=5)
    balancer.update(losses(1.0, 4.0))
    assert balancer.update(losses(3.0, 0.0, area=1.0)) == 2.0 / 4.0
    assert balancer.state_dict() == {"consistent": [1.0, 3.0], "inconsistent": [4.0]}


def test_weight_is_the_coefficient_until_both_regions_were_seen() -> None:
    assert RegionBalancer(coefficient=0.5).update(losses(3.0, 0.0, area=1.0)) == 0.5
    assert RegionBalancer().update(losses(0.0, 3.0, area=0.0)) == 1.0


def test_queue_forgets_what_is_older_than_its_window() -> None:
    balancer = RegionBalancer(window=2)
    for consistent in (100.0, 1.0, 3.0):
        weight = balancer.update(losses(consistent, 4.0))
    assert weight == 0.5


@pytest.mark.parametrize("window", [1, 5, 100])
def test_weight_on_the_device_equals_the_mean_of_two_queues_of_numbers(window: int) -> None:
    rng = np.random.default_rng(window)
    balancer = RegionBalancer(window, coefficient=0.7)
    queues: tuple[deque[float], deque[float]] = (deque(maxlen=window), deque(maxlen=window))
    for _ in range(250):
        some = np.float32(rng.exponential(1, 2) * (rng.random(2) < 0.9))  # now and then a loss of 0
        consistent, inconsistent = some.tolist()
        area = rng.choice([0.0, 0.4, 1.0], p=[0.2, 0.6, 0.2])
        for queue, loss, share in zip(queues, (consistent, inconsistent), (area, 1 - area), strict=True):
            if share > 0:
                queue.append(loss)
        usable = all(queues) and sum(queues[1]) > 0
        ratio = np.mean(queues[0]) / np.mean(queues[1]) if usable else 1.0
        weight = balancer.update(losses(consistent, inconsistent, area))
        np.testing.assert_allclose(float(weight), 0.7 * ratio, rtol=1e-6)
    assert balancer.state_dict() == {"consistent": list(queues[0]), "inconsistent": list(queues[1])}


def test_queues_saved_with_another_window_keep_their_newest() -> None:
    balancer = RegionBalancer(window=2)
    balancer.load_state_dict({"consistent": [9.0, 1.0, 3.0], "inconsistent": [4.0]})
    assert balancer.state_dict() == {"consistent": [1.0, 3.0], "inconsistent": [4.0]}


def test_a_tie_is_won_by_the_first_class() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 3.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)
    present = torch.tensor([[True, False, True, True]])
    first, second = (region_losses(logits, torch.full((1, 2, 2), c), present) for c in (2, 3))
    assert (first.consistent_area, second.consistent_area) == (1, 0)


def test_balancer_state_round_trip_gives_the_same_next_weight() -> None:
    first, second = RegionBalancer(window=3), RegionBalancer(window=3)
    for value in (1.0, 2.0, 3.0, 4.0):
        first.update(losses(value, 5.0))
    second.load_state_dict(first.state_dict())
    assert first.update(losses(6.0, 7.0)) == second.update(losses(6.0, 7.0))


def test_no_gradient_flows_through_the_weight() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    weight = RegionBalancer().update(region_losses(logits, torch.randint(0, 2, (1, 4, 4)), torch.ones(1, 2)))
    assert isinstance(float(weight), float)
    assert not weight.requires_grad
