"""The processes of a run, as accelerate knows them."""

import torch

from labelgen.training.processes import make_accelerator


def test_one_command_may_train_in_one_precision_after_the_other() -> None:
    assert make_accelerator("no").mixed_precision == "no"
    accelerator = make_accelerator("bf16")
    assert accelerator.mixed_precision == "bf16"
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    assert model(torch.ones(1, 2)).dtype == torch.float32  # accelerate gives back what it computed in less
    with accelerator.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
