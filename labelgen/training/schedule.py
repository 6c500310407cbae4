"""The learning rate of a step."""


def poly_learning_rate(step: int, steps: int, base: float, minimum: float, power: float, ramp_steps: int) -> float:
    """Linear ramp to `base` over ramp_steps, times a polynomial decay that ends at `minimum` (DeepLab's schedule)."""
    ramp = min(1.0, (step + 1) / ramp_steps) if ramp_steps else 1.0
    decay: float = (1 - step / steps) ** power
    return ramp * ((base - minimum) * decay + minimum)
