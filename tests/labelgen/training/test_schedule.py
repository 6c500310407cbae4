import pytest

from labelgen.training.schedule import poly_learning_rate


def test_learning_rate_ramps_up_and_ends_at_its_minimum() -> None:
    rates = [poly_learning_rate(s, 100, 0.005, 1e-4, 0.9, 10) for s in range(101)]
    assert rates[0] == pytest.approx(0.0005)
    assert max(rates) < 0.005
    assert rates[100] == pytest.approx(1e-4)
    assert poly_learning_rate(0, 100, 0.005, 1e-4, 0.9, 0) == 0.005
