"""scikit-learn's two photographs as files, and a tiny DINOv2 in the layout of the hub."""

import json
from pathlib import Path

from PIL import Image

# facebook/dinov2-small's, but for the sizes.
PREPROCESSOR = {
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 32},
}


def save_photographs(folder: Path, side: int = 106) -> list[str]:
    """Cut the photographs into squares, one PNG each, and return their names in `folder`."""
    from sklearn.datasets import load_sample_images

    names = []
    for number, pixels in enumerate(load_sample_images().images):
        photograph = Image.fromarray(pixels)
        (folder / f"photograph{number}").mkdir(parents=True)
        for upper in range(0, photograph.height - side + 1, side):
            for left in range(0, photograph.width - side + 1, side):
                names.append(f"photograph{number}/{upper:03d}-{left:03d}.png")
                square = photograph.crop((left, upper, left + side, upper + side))
                square.save(folder / names[-1])
    return names


def save_dinov2(folder: Path, *, width: int = 16, registers: int = 0) -> Path:
    """Save a random DINOv2 of 3 blocks with patches of 7 x 7 pixels: 16 patches of an image."""
    import torch
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    torch.manual_seed(0)
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "layerscale_value": 0.5,
    }
    if registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        model = Dinov2WithRegistersModel(config)
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder
