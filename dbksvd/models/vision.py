"""Vision encoders of Hugging Face transformers with their image processors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from dbksvd.base.provenance import choose_device
from dbksvd.base.settings import parse
from dbksvd.models.loading import DTYPES, LoadedModel, load_config, locate_model
from dbksvd.models.randomise import randomise_
from dbksvd.models.settings import ModelSettings
from dbksvd.models.sizes import ModelSizes, check_sizes, read_config
from dbksvd.models.weights import check_weights, find_file

PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class ImageModel:
    """A vision encoder with its image processor; ``loaded`` has no tokenizer."""

    loaded: LoadedModel
    processor: Any

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the model's input for one image, shape (1, channels, height, width)."""
        values = self.processor(images=image, return_tensors="pt")["pixel_values"]
        return values.to(self.loaded.model.dtype)


def load_image_model(
    settings: Mapping[str, Any] | ModelSettings, *, gpus: int | None = None
) -> ImageModel:
    """Load a vision encoder and its image processor (the one that needs Pillow only).

    Parameters
    ----------
    settings : ModelSettings, or a mapping of the same keys
        Section ``model`` of the config.
    gpus : int, optional
        GPUs that the scheduler gave to this job; None where there is no scheduler.

    Raises
    ------
    ValueError
        If a setting is not usable, or the model is no encoder of images.
    OSError
        If the model cannot be found.
    """
    from transformers import AutoImageProcessor, AutoModel

    checked = parse(ModelSettings, settings, "model")
    name = checked.shown_name
    source, pinned = locate_model(checked)
    config = load_config(source, pinned)
    preprocessor = find_file(source, PREPROCESSOR_FILE, checked.revision)
    if preprocessor is not None:
        read_config(preprocessor)  # transformers would not name the file
    try:
        processor = AutoImageProcessor.from_pretrained(source, **pinned, backend="pil")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model: expected a vision encoder with a {PREPROCESSOR_FILE}, got {name} "
            f"({config.model_type}): {str(error).splitlines()[0]}"
        ) from error
    missing = [key for key in ("num_hidden_layers", "hidden_size") if not hasattr(config, key)]
    if missing:
        raise ValueError(
            f"model: expected a vision transformer, got {name} ({config.model_type}), whose "
            f"config has no {missing[0]}"
        )
    sizes = ModelSizes(config.hidden_size, config.num_hidden_layers)
    check_sizes(checked.expect, sizes, source)
    sha256 = check_weights(source, checked)
    dtype = DTYPES[checked.dtype]
    device = choose_device(checked.device, gpus=gpus)
    model: Any = AutoModel.from_pretrained(source, **pinned, dtype=dtype, use_safetensors=True)
    if model.main_input_name != "pixel_values":
        raise ValueError(
            f"model: expected a vision transformer that takes pixel_values, got {name} "
            f"({type(model).__name__}), which takes {model.main_input_name}"
        )
    if checked.randomise is not None:
        randomise_(model, checked.randomise)
    parameters = sum(weight.numel() for weight in model.parameters())
    check_sizes(checked.expect, replace(sizes, parameters=parameters), source)
    loaded = LoadedModel(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=None,
        name=name,
        kind="encoder",
        n_layers=sizes.layers,
        width=sizes.width,
        max_length=None,
        device=device,
        revision=getattr(config, "_commit_hash", None) or checked.revision,
        sha256=sha256,
    )
    return ImageModel(loaded, processor)
