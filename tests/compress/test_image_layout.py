"""Images lie channels last in memory only where that changes nothing but the time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bisparse.compress import prune
from bisparse.compress.calibration import Call, calibration_calls
from bisparse.compress.image_layout import images_channels_last


class Viewing(nn.Module):
    """Looks at strides: ``view`` fails on an activation that lies channels last."""

    def __init__(self):
        super().__init__()
        self.conv, self.wide, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.wide(self.conv(x).relu().view(len(x), -1)).relu())


class Peeking(nn.Module):
    """Goes behind the tensor's back: other values in another format, without an error."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x.as_strided((len(x), 3, 4, 4), (48, 16, 4, 1)))


def convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, groups=2),
        nn.BatchNorm2d(16),
        nn.Flatten(),
        nn.Linear(16 * 9, 4),
    ).eval()


def images(count=2, size=8):
    generator = torch.Generator().manual_seed(3)
    return list(torch.randn(count * 20, 3, size, size, generator=generator).split(20))


def is_channels_last(call: Call) -> bool:
    return call.args[0].is_contiguous(memory_format=torch.channels_last)


def test_images_of_convolutional_networks_are_converted():
    data = images()
    calls = images_channels_last(calibration_calls(data, convnet()), convnet())
    assert all(is_channels_last(call) for call in calls)
    assert all(torch.equal(call.args[0], x) for call, x in zip(calls, data, strict=True))


@pytest.mark.parametrize(("model", "size"), [(Viewing(), 8), (Peeking(), 4)], ids=["raises", "differs"])
def test_models_that_mind_keep_their_format_and_are_pruned(model, size):
    calls = calibration_calls(images(size=size), model)
    assert not any(is_channels_last(call) for call in images_channels_last(calls, model.eval()))
    report = prune(
        model, "2:4t", ignore=[], calibration=images(size=size), reconstruct="least_squares"
    ).report
    assert all(layer.error_after < layer.error_before for layer in report.layers)


def test_other_data_and_models_are_left_alone():
    tokens, flat = Call((torch.zeros(2, 3, dtype=torch.long),)), Call((torch.zeros(2, 3),))
    assert images_channels_last([tokens, flat], convnet()) == [tokens, flat]
    pooled = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    call = Call((images()[0],))
    assert images_channels_last([call], pooled) == [call]


def test_the_format_of_the_users_images_does_not_matter():
    data = images()
    last = [x.to(memory_format=torch.channels_last) for x in data]
    a, b = (
        prune(convnet(), "2:4", calibration=calibration, reconstruct="alps").model
        for calibration in (data, last)
    )
    torch.testing.assert_close(a[2].weight, b[2].weight)
