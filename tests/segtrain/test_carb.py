from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from segtrain.carb import (
    ClassBalancer,
    ClassLosses,
    RegionBalancer,
    RegionLosses,
    find_regions,
    region_losses,
    split_by_agreement,
    warmup_loss,
)

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


# Six pixels, three classes. Pseudo-labels 0 0 0 1 1 and one ignored; the student predicts 0 0 1 0 1: class 0 is
# consistent in two of three pixels, class 1 in one of two, class 2 is nowhere.
PSEUDO = torch.tensor([[[0, 0, 0], [1, 1, 255]]])
SAYS = torch.tensor([[[0, 0, 1], [0, 1, 2]]])
ALL = torch.ones(1, 3, dtype=torch.bool)
EASY, HARD = float(np.log(2 + np.e**2) - 2), float(np.log(2 + np.e**2))  # cross-entropy of a right and a wrong "2"


def said(says: torch.Tensor = SAYS) -> torch.Tensor:
    """Logits of 2 for what is said and 0 for the others."""
    return 2.0 * torch.nn.functional.one_hot(says, 3).permute(0, 3, 1, 2).float()


def sums(*rows: tuple[float, float, float, float]) -> ClassLosses:
    """Of each class: consistent loss and pixels, inconsistent loss and pixels."""
    return ClassLosses(*torch.tensor(rows).T)


def test_regions_by_class_by_hand() -> None:
    by_class = find_regions(said(), PSEUDO, ALL).by_class(3)
    torch.testing.assert_close(by_class.consistent_loss_C, torch.tensor([2 * EASY, EASY, 0]))
    torch.testing.assert_close(by_class.inconsistent_loss_C, torch.tensor([HARD, HARD, 0]))
    assert by_class.consistent_pixels_C.tolist() == [2, 1, 0]
    assert by_class.inconsistent_pixels_C.tolist() == [1, 1, 0]


def test_a_weight_for_each_class_by_hand() -> None:
    """L = mean over consistent of CE + mean over inconsistent of w_k x CE."""
    regions = find_regions(said(), PSEUDO, ALL)
    loss = regions.loss(torch.tensor([0.5, 0.1, 0.7]))
    torch.testing.assert_close(loss, torch.tensor(EASY + (0.5 + 0.1) * HARD / 2))
    over_all = regions.loss(torch.tensor([0.5, 0.1, 0.7]), over_all=True)
    torch.testing.assert_close(over_all, torch.tensor((3 * EASY + (0.5 + 0.1) * HARD) / 5))


def test_one_weight_for_all_classes_is_the_paper_s_loss() -> None:
    torch.manual_seed(0)
    logits, pseudo = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    regions, means = find_regions(logits, pseudo, ALL), region_losses(logits, pseudo, ALL)
    paper = means.consistent + 0.3 * means.inconsistent
    torch.testing.assert_close(regions.loss(0.3), paper)
    torch.testing.assert_close(regions.loss(torch.tensor(0.3)), paper)
    torch.testing.assert_close(regions.loss(torch.full((3,), 0.3)), paper)


def test_a_teacher_s_prediction_splits_and_the_student_s_loss_counts() -> None:
    regions = find_regions(said(), PSEUDO, ALL, judge_BCHW=said(torch.tensor([[[0, 0, 0], [1, 1, 0]]])))
    assert regions.means().consistent_area == 1
    torch.testing.assert_close(regions.means().consistent, torch.tensor((3 * EASY + 2 * HARD) / 5))


def test_correction_by_hand() -> None:
    """Two pixels are inconsistent; the student is sure by e^2 / (e^2 + 2) = 0.787 of the other class."""
    regions = find_regions(said(), PSEUDO, ALL)
    torch.testing.assert_close(regions.correction_loss(said(), ALL, ALL[0], 0.7), torch.tensor(EASY))
    over_all = regions.correction_loss(said(), ALL, ALL[0], 0.7, over_all=True)
    torch.testing.assert_close(over_all, torch.tensor(2 * EASY / 5))
    for learned in ([True, False, True], [False, True, True]):  # either the doubted class is not, or the seen one
        assert regions.correction_loss(said(), ALL, torch.tensor(learned), 0.7) == 0
    assert regions.correction_loss(said(), ALL, ALL[0], 0.8) == 0  # not sure enough
    # of two classes in the image e^2 / (e^2 + 1) = 0.881: what is absent takes no share
    two = torch.tensor([[True, True, False]])
    torch.testing.assert_close(regions.correction_loss(said(), two, ALL[0], 0.8), torch.tensor(EASY))


def test_correction_towards_a_teacher_and_without_anything_to_correct() -> None:
    teacher = said(torch.tensor([[[0, 0, 2], [1, 1, 0]]]))
    regions = find_regions(said(), PSEUDO, ALL, judge_BCHW=teacher)
    loss = regions.correction_loss(said(), ALL, ALL[0], 0.7, judge_BCHW=teacher)
    torch.testing.assert_close(loss, torch.tensor(HARD))  # the student says 1 where the teacher says 2
    logits = said().requires_grad_()
    for present in (ALL & False, torch.tensor([[True, False, False]])):
        regions = find_regions(logits, torch.full((1, 2, 3), 255), present)
        regions.correction_loss(logits, present, ALL[0], 0.7).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_class_wise_weights_by_hand() -> None:
    balancer = ClassBalancer(window=2)
    # mean 1 of consistent against 4 of inconsistent pixels; 3 against 2, cut at 1; unlearned; nothing inconsistent
    first = sums((2, 2, 8, 2), (3, 1, 2, 1), (0, 0, 9, 3), (1, 4, 0, 0))
    assert balancer.update(first, 0.01).tolist() == [0.25, 1, 1, 1]
    # the queue: (2 + 6) / (2 + 2) = 2 against (8 + 8) / (2 + 2) = 4
    second = sums((6, 2, 8, 2), (0, 0, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0))
    assert balancer.update(second, 0.01)[0] == 0.5
    third = balancer.update(second, 0.01)  # the first step has left the window
    assert third[:3].tolist() == [0.75, 1, 1]


def test_gated_weights_by_hand() -> None:
    balancer = ClassBalancer(window=1, gate=(0.3, 0.6))
    losses = sums(
        (9, 9, 4, 1),  # 90 % consistent: w
        (2, 2, 32, 8),  # 20 %: its own, 1 / 4
        (9, 9, 44, 11),  # 45 %, half way: (w + 1 / 4) / 2
        (0, 0, 5, 5),  # never right: 1
        (0, 0, 0, 0),  # nowhere: 1
    )
    weights = balancer.update(losses, torch.tensor(0.05))
    torch.testing.assert_close(weights, torch.tensor([0.05, 0.25, 0.15, 1, 1]))
    torch.testing.assert_close(balancer.learned_C, torch.tensor([1.0, 0, 0.5, 0, 0]))


def test_no_class_is_left_without_anything_to_learn_from_as_w_falls() -> None:
    """The paper's w may go to 0; a class that is never right keeps its whole loss."""
    balancer = ClassBalancer(window=3, gate=(0.3, 0.6))
    for _ in range(5):
        weights = balancer.update(sums((1, 100, 5, 1), (0, 0, 30, 10)), 0.0)
    assert weights.tolist() == [0, 1]


def test_class_weights_of_a_batch_without_valid_pixels_and_of_one_class() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.full((1, 2, 2), 255)
    for pseudo, present in ((nothing, ALL & False), (torch.full((1, 2, 2), 2), torch.tensor([[False, False, True]]))):
        regions = find_regions(logits, pseudo, present)
        weights = ClassBalancer(gate=(0.3, 0.6)).update(regions.by_class(3), RegionBalancer().update(regions.means()))
        assert weights.tolist() == [1, 1, 1]
        regions.loss(weights).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_class_balancer_state_round_trip_gives_the_same_next_weights() -> None:
    first, second = ClassBalancer(window=2, gate=(0.3, 0.6)), ClassBalancer(window=2, gate=(0.3, 0.6))
    second.load_state_dict(first.state_dict())  # before anything was seen
    for k in (1.0, 2.0, 3.0):
        first.update(sums((k, 1, 4, 2), (2, 2, k, 1)), 0.1)
    second.load_state_dict(first.state_dict())
    newest = sums((5, 2, 6, 1), (1, 1, 1, 1))
    assert torch.equal(first.update(newest, 0.1), second.update(newest, 0.1))


def test_no_gradient_flows_through_class_weights() -> None:
    logits = said().requires_grad_()
    weights = ClassBalancer().update(find_regions(logits, PSEUDO, ALL).by_class(3), 0.1)
    assert not weights.requires_grad
