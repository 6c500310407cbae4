from labelgen.training.order import Order, _shuffled


def test_order_shows_every_image_once_an_epoch_and_shuffles_anew() -> None:
    order = Order(images=6, batch=4, seed=0)
    rows = [place.row for step in range(6) for place in order.places(step)]
    epochs = [rows[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_order_is_drawn_once_an_epoch_however_many_images() -> None:
    order = Order(images=1_000_000, batch=8, seed=3)
    _shuffled.cache_clear()
    steps = [order.places(step) for step in (0, 124_999, 60_000, *range(100))]
    assert _shuffled.cache_info().misses == 1
    assert steps[0] == steps[3]  # asked again, out of turn
    order.places(125_000)
    order.places(124_999)
    assert _shuffled.cache_info().misses == 2
