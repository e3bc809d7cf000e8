"""What a GPU recorded can be scored where there is none."""

import torch

from dbksvd.evaluation.saebench.shims.common import read_on


def test_tensors_are_read_to_the_device_that_scores(tmp_path):
    torch.save(torch.ones(3), tmp_path / "acts.pt")
    with read_on("meta"):  # stands in for a device that is not where the tensor was
        assert torch.load(tmp_path / "acts.pt").device.type == "meta"
        explicit = torch.load(tmp_path / "acts.pt", map_location="cpu", weights_only=True)
    assert explicit.device.type == "cpu"
    assert torch.load(tmp_path / "acts.pt").device.type == "cpu"
