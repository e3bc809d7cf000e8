"""The engine without a workflow: fit, encode and export, from files to files."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dbksvd.base.local_files import expand_user
from dbksvd.base.settings import LARGEST_SEED

BLOCK_ROWS = 65536
FEATURE_FORMATS = ("neuronpedia", "activations")
EXPORT_FORMATS = ("saelens", "sign-split", "matching-pursuit", "safetensors", *FEATURE_FORMATS)

Activations = Annotated[
    Path, typer.Argument(help=".npy, .h5 or .safetensors file with an array (rows, d).")
]
Tensor = Annotated[str, typer.Option(help="Dataset or tensor inside .h5 and .safetensors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fit(
    activations: Activations,
    output: Annotated[Path, typer.Argument(help="Folder of the dictionary.")],
    atoms: Annotated[int, typer.Option(help="Atoms of the dictionary.")],
    k: Annotated[int, typer.Option(help="Most non-zeros of a sample; --mean: their mean.")],
    nonnegative: Annotated[bool, typer.Option("--nonnegative", help="Coefficients ≥ 0.")] = False,
    mean: Annotated[bool, typer.Option("--mean", help="k non-zeros on average.")] = False,
    pursuit: Annotated[str, typer.Option(help="mp, omp or ols.")] = "ols",
    heldout: Annotated[float, typer.Option(help="Share of the rows to measure on.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    tensor: Tensor = "activations",
    json: AsJson = False,
) -> None:
    """Learn a DB-KSVD dictionary from an array of activations.

    Rows are shuffled by the seed; the last ones are held out. The array is read into memory as
    float32; the workflow also takes what is larger.

    \b
    dbksvd fit acts.npy my-dictionary --atoms 4096 --k 32
    """
    if not 0 < heldout < 1:
        raise ValueError(f"--heldout: expected a share between 0 and 1, got {heldout}")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"--seed: expected 0 to {LARGEST_SEED}, got {seed}")
    if pursuit not in ("mp", "omp", "ols"):
        raise ValueError(f"--pursuit: expected mp, omp or ols, got {pursuit!r}")
    import torch

    from dbksvd.base.variance import ExplainedVariance
    from dbksvd.dictionaries.saved import check_place
    from dbksvd.fit.ksvd.dbksvd import DBKSVD

    check_place(output)
    x = read_rows(activations, tensor)
    n_heldout = max(1, round(heldout * len(x)))
    if n_heldout >= len(x):
        raise ValueError(
            f"--heldout: expected a share that leaves rows to learn from, got {n_heldout} of the "
            f"{len(x)} in {activations}"
        )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, held = x[order[:-n_heldout]], x[order[-n_heldout:]]
    model = DBKSVD(
        atoms,
        k,
        nonnegative=nonnegative,
        sparsity="mean" if mean else "exact",
        method=pursuit,  # type: ignore[arg-type]
        seed=seed,
        device=device,
        progress=sys.stderr.isatty(),
    ).fit(train)
    model.dictionary_.save(output)
    explained = ExplainedVariance(held.shape[1])
    non_zeros = 0
    for block in held.split(BLOCK_ROWS):
        codes = model.transform(block)
        explained.add(block, model.dictionary_.decode(codes))
        non_zeros += int(codes.l0.sum())
    measured = {
        "dictionary": str(output),
        "rows": len(train),
        "heldout_rows": len(held),
        "variance_explained": explained.compute("held-out rows"),
        "l0": non_zeros / len(held),
    }
    tell(measured, as_json=json)


def encode(
    dictionary: Annotated[Path, typer.Argument(help="Folder in SAELens's layout.")],
    activations: Activations,
    output: Annotated[Path, typer.Argument(help=".safetensors file for indices and values.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    tensor: Tensor = "activations",
    json: AsJson = False,
) -> None:
    """Code activations by a dictionary, or by any SAE that SAELens loads.

    The output holds `indices` (int64) and `values` (float32), both of shape (rows, most non-zeros
    of a row); unused places hold index 0 and value 0.

    \b
    dbksvd encode my-dictionary acts.npy codes.safetensors
    """
    check_ending(output)
    from safetensors.torch import save_file

    from dbksvd.base.files import replace_file
    from dbksvd.dictionaries.loading import load_dictionary
    from dbksvd.ops.inputs import pick_device

    place = pick_device(device)
    require_dictionary(dictionary)
    loaded = load_dictionary(dictionary, place)
    rows = read_rows(activations, tensor)
    indices, values = encode_rows(loaded, rows, place)
    about = {"n_atoms": str(len(loaded.atoms)), "dictionary": str(dictionary)}
    with replace_file(output) as temporary:
        save_file({"indices": indices, "values": values}, temporary, about)
    l0 = float((values != 0).sum() / len(rows))
    tell({"codes": str(output), "rows": len(rows), "l0": l0}, as_json=json)


def export(
    dictionary: Annotated[Path, typer.Argument(help="Folder in SAELens's layout.")],
    output: Annotated[Path, typer.Argument(help="Folder or file to write.")],
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(EXPORT_FORMATS)}.")],
    site: Annotated[
        Path | None,
        typer.Option(help="Folder of the features. [default: that of the run]"),
    ] = None,
    sae_set: Annotated[
        str | None,
        typer.Option(help="Name of the set on Neuronpedia. [default: the experiment]"),
    ] = None,
) -> None:
    """Write a dictionary in a form that other tools read.

    saelens: as it is (after `import dbksvd`); sign-split: signed codes as 2m latents ≥ 0;
    matching-pursuit: SAELens's own architecture, where it codes alike; safetensors: one file with
    atoms and bias. From a run with feature pages: neuronpedia, batches of features; activations,
    one safetensors file of where features are active.

    \b
    dbksvd export my-dictionary my-export --format sign-split
    """
    if form not in EXPORT_FORMATS:
        raise ValueError(f"--format: expected {', '.join(EXPORT_FORMATS)}, got {form!r}")
    require_dictionary(dictionary)
    if output.resolve() == dictionary.resolve():
        raise ValueError(f"{output}: expected another folder than that of the dictionary")
    if form in FEATURE_FORMATS:
        export_features(dictionary, output, form, site=site, sae_set=sae_set)
    elif form == "safetensors":
        check_ending(output)
        export_atoms(dictionary, output)
    else:
        from dbksvd.dictionaries.dictionary import Dictionary
        from dbksvd.dictionaries.exports import EXPORTS

        loaded = Dictionary.load(dictionary)
        write = {"saelens": Dictionary.save, **EXPORTS}[form]
        write(loaded, output)
    typer.echo(f"{form}  {output}")


ENGINE: tuple[Callable[..., None], ...] = (fit, encode, export)


def require_dictionary(folder: Path) -> None:
    """Refuse what is no folder with a dictionary's description."""
    if not (folder / "cfg.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected the folder of a dictionary, with a cfg.json, found none"
        )


def check_ending(output: Path) -> None:
    """Refuse to write safetensors under another name."""
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: expected a name that ends in .safetensors")


def read_rows(path: Path, tensor: str) -> Any:
    """Return an array in a file as a float32 tensor of shape (rows, d).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is damaged, or it holds something else.
    """
    import numpy as np
    import torch

    from dbksvd.activations.from_files import open_table

    path = expand_user(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an array of activations, found no such file")
    with open_table(path, tensor) as table:
        rows = np.empty((table.rows, table.width), np.float32)
        for start in range(0, table.rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, table.rows)
            with np.errstate(over="ignore"):  # an infinity is refused where it is used
                rows[start:stop] = table.read(start, stop)
    return torch.from_numpy(rows)


def encode_rows(dictionary: Any, rows: Any, device: Any) -> tuple[Any, Any]:
    """Return indices and values of all rows, as wide as the fullest row needs."""
    import torch
    from torch.nn.functional import pad

    blocks = []
    for block in rows.split(BLOCK_ROWS):
        codes = dictionary.encode(block.to(device))
        width = max(1, int(codes.l0.max()))
        blocks.append((codes.indices[:, :width].cpu(), codes.values[:, :width].float().cpu()))
    most = max(indices.shape[1] for indices, _ in blocks)
    wide = [[pad(part, (0, most - part.shape[1])) for part in block] for block in blocks]
    indices, values = (torch.cat(parts).contiguous() for parts in zip(*wide, strict=True))
    return indices, values


def export_atoms(folder: Path, output: Path) -> None:
    """Write atoms (m, d) of unit norm and bias (d,) of any dictionary to one safetensors file."""
    from safetensors.torch import save_file

    from dbksvd.base.files import replace_file
    from dbksvd.dictionaries.loading import load_dictionary

    loaded = load_dictionary(folder)
    with replace_file(output) as temporary:
        parts = {"atoms": loaded.atoms.contiguous(), "bias": loaded.bias.contiguous()}
        save_file(parts, temporary)


def export_features(
    dictionary: Path, output: Path, form: str, *, site: Path | None, sae_set: str | None
) -> None:
    """Write what was collected of the features of a dictionary of a finished run.

    Raises
    ------
    ValueError
        If no features were collected for it.
    """
    from dbksvd.dictionaries.loading import load_dictionary
    from dbksvd.features.exports import export_activations, export_neuronpedia
    from dbksvd.features.site import SiteFeatures

    folder = dictionary.resolve()
    place = site.resolve().parent if site else folder.parents[2]  # …/layer4
    where = site or place / "features"
    if not where.is_dir():
        raise ValueError(
            f"{dictionary}: expected a dictionary of a run that made feature pages, or --site with "
            f"their folder, found no {where}"
        )
    features = SiteFeatures.open(where)
    name = f"{folder.parent.name}/{folder.name}"
    features.read(name)  # says which names there are
    if form == "activations":
        check_ending(output)
        export_activations(features, name, output)
    else:
        loaded, sae_set = load_dictionary(folder), sae_set or place.parent.name
        export_neuronpedia(features, name, loaded, output, sae_set=sae_set)


def tell(measured: dict[str, Any], *, as_json: bool) -> None:
    """Print what was measured: as JSON, or a line for each value."""
    if as_json:
        typer.echo(json_format.dumps(measured))
        return
    for key, value in measured.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        typer.echo(f"{key.replace('_', ' '):<20}{shown}")
