"""Images on disk become tiles, splits and the activations of a vision encoder."""

import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from image_helpers import PREPROCESSOR, save_dinov2, save_photographs
from PIL import Image

from dbksvd.activations.from_images import extract_image_slice
from dbksvd.base.files import read_json
from dbksvd.images.files import decode_image
from dbksvd.images.prepare import hash_images, load_records, prepare_images
from dbksvd.images.settings import ImageSettings
from dbksvd.models.vision import load_image_model


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "photographs"
    assert len(save_photographs(folder)) == 48
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> Path:
    return save_dinov2(tmp_path_factory.mktemp("models") / "tiny-dinov2")


@pytest.fixture(scope="module")
def prepared(photographs, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "images"
    prepare_images({"folder": str(photographs), "heldout_fraction": 0.25}, output)
    return output


def prepare(images: Path, output: Path, **changes):
    prepare_images({"folder": str(images), "heldout_fraction": 0.25} | changes, output)
    return load_records(output)


def settings_for(folder: Path, **changes) -> dict:
    return {
        "source": "images",
        "model": {"name": str(folder)} | changes.pop("model", {}),
        "layer": 2,
        "image_tokens": "all",
        "n_train_tokens": 100,
        "n_heldout_tokens": 50,
        "batch_size": 4,
    } | changes


def test_split_and_order_depend_on_seed_and_content_only(photographs, tmp_path):
    _, records = prepare(photographs, tmp_path / "one")
    assert {record.split for record in records} == {"train", "heldout"}
    assert len(records) == 48
    shutil.copytree(photographs, tmp_path / "renamed")
    for number, path in enumerate(sorted((tmp_path / "renamed").rglob("*.png"), reverse=True)):
        path.rename(tmp_path / "renamed" / f"{number}.PNG")
    _, renamed = prepare(tmp_path / "renamed", tmp_path / "two")
    assert [(r.sha256, r.split) for r in renamed] == [(r.sha256, r.split) for r in records]
    _, other = prepare(photographs, tmp_path / "three", seed=1)
    assert [r.sha256 for r in other] != [r.sha256 for r in records]
    assert sorted(r.sha256 for r in other) == sorted(r.sha256 for r in records)


def test_manifest_counts_what_is_used_and_what_is_not(photographs, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(photographs / "photograph0", folder)
    shutil.copy(folder / "000-000.png", folder / "a copy.png")
    Image.new("L", (50, 200)).save(folder / "narrow.bmp")
    Image.new("RGB", (300, 200), (9, 9, 9)).save(folder / "wide.jpg")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image")
    os.mkfifo(folder / "pipe.png")
    manifest, records = prepare(folder, tmp_path / "out", tile_size=100, tile_stride=50)
    assert manifest["not_used"] == {
        "duplicates": 1, "too_small": 1, "over_max_images": 0, "other_files": 3,
    }  # fmt: skip
    assert sum(manifest["images"].values()) == 25
    assert sum(manifest["tiles"].values()) == 24 + 5 * 3
    by_name = {record.name: record for record in records}
    assert by_name["narrow.bmp"].split is None
    assert {by_name["000-000.png"].split, by_name["a copy.png"].split} - {None} != set()
    content = (folder / "wide.jpg").read_bytes()
    assert by_name["wide.jpg"].sha256 == hashlib.sha256(content).hexdigest()
    assert (by_name["wide.jpg"].width, by_name["wide.jpg"].height) == (300, 200)
    manifest, _ = prepare(folder, tmp_path / "few", max_images=7, heldout_fraction=0.5)
    assert sum(manifest["images"].values()) == 7
    assert manifest["not_used"]["over_max_images"] + manifest["not_used"]["duplicates"] == 20


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (None, None, [(0, 0, 9, 5)]),
        (4, None, [(0, 0, 4, 4), (4, 0, 8, 4)]),
        (4, 1, [(x, y, x + 4, y + 4) for y in (0, 1) for x in range(6)]),
        (5, 4, [(0, 0, 5, 5), (4, 0, 9, 5)]),
        (6, 1, []),
    ],
)
def test_tiles_lie_inside_the_image(size, stride, expected):
    settings = ImageSettings(folder="images", tile_size=size, tile_stride=stride)
    assert settings.list_boxes(9, 5) == expected


def break_images(folder: Path) -> None:
    content = (folder / "000-000.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.gif").write_text("no image")


def test_unreadable_images_are_refused_in_one_line(photographs, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(photographs / "photograph0", folder)
    break_images(folder)
    message = r"images\.folder: expected readable images, 3 in .* are not; the first: cut\.png: exp"
    with pytest.raises(ValueError, match=message):
        prepare(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_deep_pixels_are_refused_and_others_become_rgb(tmp_path):
    def save(image: Image.Image, name: str) -> bytes:
        image.save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    deep = save(Image.fromarray(np.full((4, 4), 40000, np.uint16)), "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: expected 8 bits a channel, got .* I;16"):
        decode_image(deep, "deep.png")
    for mode in ("1", "L", "LA", "P", "RGBA"):
        image = decode_image(save(Image.new(mode, (3, 2)), f"{mode}.png"), mode)
        assert (image.mode, image.size) == ("RGB", (3, 2))


def draw_pixels(width: int = 30, height: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# what the camera did to the scene, undone: rows from the top, columns from the left
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_read_the_way_up_that_its_exif_says(kind, orientation):
    pixels, exif = draw_pixels(), Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(encode(Image.fromarray(pixels), kind, exif=exif, **lossless), "a")
    np.testing.assert_array_equal(np.asarray(image), UPRIGHT[orientation](pixels))


def test_a_sideways_photograph_is_cut_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    for number, width in enumerate((31, 33, 35, 37)):
        image = Image.fromarray(draw_pixels(width))
        image.save(tmp_path / "images" / f"{number}.jpg", exif=exif)
    _, records = prepare(tmp_path / "images", tmp_path / "out", heldout_fraction=0.5, seed=1)
    assert sorted((r.width, r.height) for r in records) == [(20, 31), (20, 33), (20, 35), (20, 37)]


def list_modes() -> dict[str, bytes]:
    """Return images of kinds that a folder of the field may hold."""
    rgb = Image.fromarray(draw_pixels())
    palette = rgb.quantize(16)
    return {
        "palette.png": encode(palette, "PNG"),
        "see-through palette.png": encode(palette, "PNG", transparency=bytes(range(16))),
        "see-through palette.gif": encode(palette, "GIF", transparency=3),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(rgb.convert("L"), "JPEG"),
        "alpha.png": encode(rgb.convert("RGBA"), "PNG"),
        "grey alpha.png": encode(rgb.convert("LA"), "PNG"),
        "moving.gif": encode(
            palette, "GIF", save_all=True, append_images=[Image.new("P", (30, 20))]
        ),
        "moving.webp": encode(
            rgb, "WEBP", save_all=True, append_images=[Image.new("RGB", (30, 20))]
        ),
        "pages.tif": encode(rgb, "TIFF", save_all=True, append_images=[Image.new("L", (3, 2))]),
        "one pixel.png": encode(rgb.crop((4, 5, 5, 6)), "PNG"),
        "black and white.tif": encode(rgb.convert("1"), "TIFF"),
        "png named.jpg": encode(rgb, "PNG"),
        "lab.tif": encode(Image.new("LAB", (3, 2), (99, 3, 4)), "TIFF"),
    }


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", list_modes())
def test_pixels_are_pillows(name):
    content = list_modes()[name]
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    image = decode_image(content, name)
    assert (image.mode, image.size) == ("RGB", expected.size)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def list_bad_images() -> dict[str, tuple[bytes, str]]:
    """Return images that cannot be read as RGB, and what is said of each."""
    rgb = Image.fromarray(draw_pixels())
    png, jpeg = encode(rgb, "PNG"), encode(rgb, "JPEG")
    header = b"P6 20000 20000 255\n"
    return {
        "deep.tif": (encode(Image.fromarray(draw_pixels()[:, :, 0].astype("i4")), "TIFF"), "8 bit"),
        "real.tif": (encode(Image.fromarray(draw_pixels()[:, :, 0].astype("f4")), "TIFF"), "8 bit"),
        "cut.png": (png[:-40], "whole image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "whole image"),
        "start only.png": (png[:8], "image"),
        "bomb.ppm": (header, "whole image, got: .*decompression bomb"),
        "text.jpg": (b"not an image", "its content is none"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "its content is none"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\n", "its content is none"),
        "archive.png": (b"PK\x03\x04", "its content is none"),
    }


@pytest.mark.parametrize("name", list_bad_images())
def test_what_is_no_whole_image_is_named(name):
    content, message = list_bad_images()[name]
    with pytest.raises(ValueError, match=f"^{name}: expected .*{message}") as caught:
        decode_image(content, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_named_or_decoded(kind):
    exif, draw = Image.Exif(), np.random.default_rng(0)
    exif[0x0112] = 6
    options = {} if kind in ("BMP", "GIF", "PPM") else {"exif": exif}
    content = encode(Image.fromarray(draw_pixels()), kind, **options)
    decoded = 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in draw.integers(0, min(300, len(content)), 3):
            damaged[place] = draw.integers(256)
        try:
            decoded += decode_image(bytes(damaged), "damaged").mode == "RGB"
        except ValueError as error:
            decoded += str(error).startswith("damaged: expected ")
    assert decoded == 100


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"folder": "nowhere"}, FileNotFoundError, r"images\.folder: expected a folder, found none at nowhere"),
        ({"folder": "empty"}, ValueError, r"images\.folder: expected files that end with \.bmp, .*, found none among the 1 files in empty"),
        ({"heldout_fraction": 1e-9}, ValueError, r"images: expected at least 1 heldout image, got none of 24 files"),
        ({"max_images": 1}, ValueError, r"images: expected at least 1 (train|heldout) image, got none of 24 files \(duplicates 0, too_small 0, over_max_images 23"),
        ({"tile_size": 500}, ValueError, r"images: expected at least 1 train image, got none .*too_small 24"),
        ({"tile_stride": 5}, ValueError, r"images\.tile_stride: expected images\.tile_size beside it"),
        ({"heldout_fraction": 1}, ValueError, r"images\.heldout_fraction: expected less than 1, got 1"),
        ({"tile_sise": 5}, ValueError, r"images\.tile_sise: unknown key, did you mean 'tile_size'\?"),
    ],
)  # fmt: skip
def test_unusable_settings_are_named(photographs, tmp_path, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("")
    with pytest.raises(error, match=message):
        prepare(photographs / "photograph0", tmp_path / "out", **changes)


def test_content_hash_follows_content_and_reads_changed_files_only(
    photographs, tmp_path, monkeypatch
):
    folder, listed = tmp_path / "images", tmp_path / "out/images.jsonl"
    shutil.copytree(photographs / "photograph0", folder)
    before = hash_images(folder, listed)
    prepare(folder, tmp_path / "out")
    hashed = []
    monkeypatch.setattr(
        "dbksvd.images.prepare.hash_file",
        lambda path: hashed.append(path.name) or hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert hash_images(folder, listed) == before
    assert hashed == []
    (folder / "000-000.png").touch()
    assert hash_images(folder, listed) == before
    assert hashed == ["000-000.png"]
    # replaced by other bytes of the same number, with the old time
    replaced = folder / "000-106.png"
    content, times = bytearray(replaced.read_bytes()), replaced.stat()
    content[-20] ^= 1
    replaced.write_bytes(content)
    os.utime(replaced, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hash_images(folder, listed) != before
    (folder / "000-000.png").rename(folder / "other.png")
    assert hash_images(folder, listed) != before


def test_processor_is_hugging_faces_without_torchvision(photographs, dinov2):
    from transformers import AutoImageProcessor

    model = load_image_model({"name": str(dinov2)})
    image = decode_image((photographs / "photograph1/106-212.png").read_bytes(), "image")
    wide = image.resize((97, 64))
    ours = torch.cat([model.prepare(image), model.prepare(wide)])
    theirs = AutoImageProcessor.from_pretrained(dinov2)(images=[image, wide], return_tensors="pt")
    assert torch.equal(ours, theirs["pixel_values"])
    assert "torchvision" not in sys.modules
    # and by hand: bicubic to 32 pixels on the short side, the middle 28, ImageNet's mean and spread
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    mean, spread = PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]
    expected = ((pixels - mean) / spread)[2:30, 2:30].transpose(2, 0, 1)
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-5)


def read_part(path: Path, split: str) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[split][name][:] for name in file[split]}


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_rows_are_hugging_faces_hidden_states(photographs, tmp_path, layer, registers):
    from transformers import AutoImageProcessor, AutoModel

    folder = save_dinov2(tmp_path / "model", registers=registers)
    _, records = prepare(photographs, tmp_path / "out", tile_size=50)
    settings = settings_for(folder, layer=layer, image_tokens="patches")
    seal = extract_image_slice(settings, 0, tmp_path / "part.h5", images=tmp_path / "out")
    assert seal["rows"] == {"train": 100, "heldout": 50}
    model, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    rows = read_part(tmp_path / "part.h5", "train")
    # 16 patches of a tile, 4 tiles of an image: tile 2 of the second image begins at row 96
    for start, number, tile in ((0, 0, 0), (16, 0, 1), (64, 1, 0), (96, 1, 2)):
        line = [i for i, record in enumerate(records) if record.split == "train"][number]
        box = [(0, 0, 50, 50), (50, 0, 100, 50), (0, 50, 50, 100)][tile]
        with Image.open(photographs / records[line].name) as image:
            inputs = processor(images=image.convert("RGB").crop(box), return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        n = min(16, 100 - start)
        here = slice(start, start + n)
        np.testing.assert_allclose(
            rows["activations"][here], states[1 + registers :][:n], atol=1e-5
        )
        assert (rows["document"][here] == line).all()
        assert (rows["token"][here] == tile).all()
        assert rows["position"][here].tolist() == list(range(1 + registers, 1 + registers + n))


@pytest.mark.parametrize(("which", "expected"), [("cls", [0]), ("all", list(range(17)))])
def test_kept_tokens(prepared, dinov2, tmp_path, which, expected):
    settings = settings_for(dinov2, image_tokens=which, n_train_tokens=34, n_heldout_tokens=5)
    extract_image_slice(settings, 0, tmp_path / "part.h5", images=prepared)
    rows = read_part(tmp_path / "part.h5", "train")
    assert rows["position"].tolist() == expected * (34 // len(expected))


def test_slices_share_the_images_and_splits_do_not(prepared, dinov2, tmp_path):
    settings = settings_for(dinov2, slices=3, tokens_per_document=5, image_tokens="patches")
    settings["n_heldout_tokens"] = 30
    seals = [
        extract_image_slice(settings, i, tmp_path / f"part-{i}.h5", images=prepared)
        for i in range(3)
    ]
    assert [seal["rows"]["train"] for seal in seals] == [34, 33, 33]
    used = [
        {split: set(read_part(tmp_path / f"part-{i}.h5", split)["document"]) for split in SPLITS}
        for i in range(3)
    ]
    everything = [number for one in used for documents in one.values() for number in documents]
    assert len(everything) == len(set(everything))
    assert extract_image_slice(settings, 1, tmp_path / "again.h5", images=prepared) == {
        **seals[1], "file": "again.h5",
    }  # fmt: skip
    positions = read_part(tmp_path / "part-0.h5", "train")["position"].reshape(-1)[:10]
    assert len(set(positions[:5])) == 5
    assert positions[:5].tolist() != positions[5:].tolist()


SPLITS = ("train", "heldout")


def test_batch_size_and_dtype_change_little(prepared, dinov2, tmp_path):
    rows = []
    for number, changes in enumerate(({}, {"batch_size": 1}, {"storage_dtype": "float16"})):
        path = tmp_path / f"{number}.h5"
        extract_image_slice(settings_for(dinov2, **changes), 0, path, images=prepared)
        rows.append(read_part(path, "train")["activations"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert rows[2].dtype == np.float16
    np.testing.assert_allclose(rows[0], rows[2], atol=2e-2)
    half = settings_for(dinov2, model={"dtype": "bfloat16"})
    extract_image_slice(half, 0, tmp_path / "half.h5", images=prepared)
    np.testing.assert_allclose(
        read_part(tmp_path / "half.h5", "train")["activations"], rows[0], atol=0.2
    )


def test_attributes_say_where_rows_come_from(prepared, dinov2, tmp_path):
    extract_image_slice(settings_for(dinov2), 0, tmp_path / "part.h5", images=prepared)
    with h5py.File(tmp_path / "part.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["images_sha256"] == read_json(prepared / "manifest.json")["sha256"]
    assert attributes["model_kind"] == "image encoder"
    assert attributes["layer"] == 2
    assert json.loads(attributes["image_processor"])["crop_size"] == {"height": 28, "width": 28}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 4}, r"^layer: expected 0 to 3, got 4$"),
        ({"n_train_tokens": 100000}, r"^images: expected 100000 train tokens in slice 0, got \d+ from \d+ images$"),
        ({"image_tokens": "patch"}, r"^activations\.image_tokens: expected one of 'cls', 'patches', 'all', got 'patch'$"),
        ({"hook_module": "embeddings.patch_embeddings.projection"}, r"^embeddings\.patch_embeddings\.projection: expected activations of shape \(1, 'tokens', 'd'\), got \(1, 16, 4, 4\)$"),
        ({"hook_module": "encoder.layers"}, r"^hook_module: expected a submodule of Dinov2Model, got 'encoder\.layers', close names: .*"),
    ],
)  # fmt: skip
def test_unusable_extraction_is_named(prepared, dinov2, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        extract_image_slice(
            settings_for(dinov2, **changes), 0, tmp_path / "part.h5", images=prepared
        )
    assert not (tmp_path / "part.h5").exists()


def test_model_that_reads_text_is_refused(prepared, tiny_encoder, tmp_path):
    message = r"^model: expected a vision encoder with a preprocessor_config\.json, got .*tiny-encoder \(bert\): "
    with pytest.raises(ValueError, match=message):
        extract_image_slice(settings_for(tiny_encoder), 0, tmp_path / "p.h5", images=prepared)
    shutil.copytree(tiny_encoder, tmp_path / "bert")
    preprocessor = json.dumps(PREPROCESSOR)
    (tmp_path / "bert/preprocessor_config.json").write_text(preprocessor)
    message = r"^model: expected a vision transformer that takes pixel_values, got .* \(BertModel\), which takes input_ids$"
    with pytest.raises(ValueError, match=message):
        extract_image_slice(settings_for(tmp_path / "bert"), 0, tmp_path / "p.h5", images=prepared)


def test_images_of_several_sizes_need_tiles_or_a_crop(dinov2, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(dinov2, model)
    loose = json.dumps(PREPROCESSOR | {"do_center_crop": False})
    (model / "preprocessor_config.json").write_text(loose)
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for width in range(40, 60):
        pixels = draw.integers(0, 256, size=(40, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{width}.png")
    prepare(tmp_path / "images", tmp_path / "out")
    message = r"^model: expected an image processor that brings all images to one size, got .* for .*\.png after"
    with pytest.raises(ValueError, match=message):
        extract_image_slice(settings_for(model), 0, tmp_path / "p.h5", images=tmp_path / "out")


def test_changed_image_is_refused(photographs, dinov2, tmp_path):
    shutil.copytree(photographs, tmp_path / "images")
    _, records = prepare(tmp_path / "images", tmp_path / "out")
    first = next(record for record in records if record.split == "train")
    Image.new("RGB", (106, 106)).save(tmp_path / "images" / first.name)
    with pytest.raises(ValueError, match=rf"{first.name}: expected sha256 {first.sha256}, got "):
        extract_image_slice(settings_for(dinov2), 0, tmp_path / "part.h5", images=tmp_path / "out")
    (tmp_path / "out/images.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"images\.jsonl: expected sha256 "):
        load_records(tmp_path / "out")
