"""A site for other tools: Neuronpedia's batches, and examples as delphi-like tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dbksvd.base.files import replace_file
from dbksvd.base.saving import Folder
from dbksvd.dictionaries.dictionary import SparseDictionary
from dbksvd.features.site import AtomArrays, SiteFeatures

FEATURES_PER_BATCH = 128
DIGITS = 4


def export_neuronpedia(
    site: SiteFeatures, name: str, dictionary: SparseDictionary, output: str | Path, *, sae_set: str
) -> list[Path]:
    """Write the batch files of a dictionary that Neuronpedia's import and sae-dashboard read.

    Both sides of a signed atom are features: f < m is the atom, m + f its opposite. Two tables of
    sae-dashboard have no counterpart here: ``correlated_neurons`` stays empty, and
    ``correlated_features`` holds the co-active features with the correlation of firing at all
    (``pearson``) and the Jaccard index (``l1``).

    Parameters
    ----------
    site : SiteFeatures
        A site of text.
    name : str
        Name of the dictionary in the site.
    dictionary : SparseDictionary
        The dictionary itself: its atoms are written too.
    output : path
        Folder for ``batch-0.json``, …; replaced as a whole.
    sae_set : str
        Name of the set of dictionaries on Neuronpedia.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If the site is not of text, or the dictionary has another shape.
    """
    arrays = _read_text_site(site, name)
    atoms = dictionary.atoms.float().cpu().numpy()
    expected = (arrays.n_atoms, arrays.entry["width"])
    if atoms.shape != expected:
        raise ValueError(f"dictionary: expected atoms of shape {expected}, got {atoms.shape}")
    model, files = site.manifest["model"], []
    with Folder(("batch-*.json",)).replace(output) as folder:
        for start in range(0, arrays.entry["n_features"], FEATURES_PER_BATCH):
            stop = min(start + FEATURES_PER_BATCH, arrays.entry["n_features"])
            batch = {
                "model_id": model.get("model"),
                "layer": model.get("layer"),
                "sae_set": sae_set,
                "sae_id_suffix": name.replace("/", "-"),
                "features": [
                    _describe_feature(site, arrays, feature, atoms)
                    for feature in range(start, stop)
                ],
            }
            files.append(f"batch-{start // FEATURES_PER_BATCH}.json")
            (folder / files[-1]).write_text(json.dumps(batch, allow_nan=False))
    return [Path(output) / file for file in files]


def _read_text_site(site: SiteFeatures, name: str) -> AtomArrays:
    if site.manifest["kind"] != "text":
        raise ValueError(f"site: expected one of text, got {site.manifest['kind']}")
    return site.read(name)


def _describe_feature(
    site: SiteFeatures, arrays: AtomArrays, feature: int, atoms: np.ndarray
) -> dict[str, Any]:
    side, atom = divmod(feature, arrays.n_atoms)
    described = site.describe_feature(arrays, feature)
    vector = atoms[atom] * (-1 if side else 1)
    order = arrays.arrays["neuron_index"][atom]
    counts = np.array(described["histogram"]["counts"])
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    width = described["histogram"]["top"] / len(counts)
    data = site.manifest["data"]
    return {
        "feature_index": feature,
        "neuron_alignment_indices": order.tolist(),
        "neuron_alignment_values": _round(vector[order]),
        "neuron_alignment_l1": _round(np.abs(vector[order]) / np.abs(vector).sum()),
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [row["feature"] for row in described["coactive"]],
        "correlated_features_pearson": _round(_correlate(site, arrays, feature, described)),
        "correlated_features_l1": _round([row["jaccard"] for row in described["coactive"]]),
        **_describe_logits(site, arrays, atom, flipped=bool(side)),
        "frac_nonzero": described["density"],
        "freq_hist_data_bar_values": _round((np.arange(used) + 0.5) * width),
        "freq_hist_data_bar_heights": counts[:used].tolist(),
        "n_prompts_total": data["contexts"],
        "n_tokens_in_prompt": site.manifest["model"].get("context_length", 0),
        "dataset": f"{data['split']} documents, sha256 {data['sha256']}",
        "activations": _list_activations(described),
        "decoder_weights_dist": [],
        "vector": _round(vector),
    }


def _round(values: Any) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def _correlate(
    site: SiteFeatures, arrays: AtomArrays, feature: int, described: dict[str, Any]
) -> list[float]:
    """Return Pearson's correlation of two features firing, among the tokens that were counted."""
    n, base = site.manifest["coactive_tokens"], arrays.arrays["coactive_base"] / 1.0
    found = []
    for row in described["coactive"]:
        own, other = base[feature], base[row["feature"]]
        scale = np.sqrt(own * (n - own) * other * (n - other))
        found.append((n * row["count"] - own * other) / scale if scale > 0 else 0.0)
    return found


def _describe_logits(
    site: SiteFeatures, arrays: AtomArrays, atom: int, *, flipped: bool
) -> dict[str, Any]:
    """Return the tables of logits; the opposite of an atom lowers what the atom raises."""
    if "logit_token" not in arrays.arrays:
        names = ("pos_str", "pos_values", "neg_str", "neg_values", "logits_hist_data_bar_heights")
        return {name: [] for name in (*names, "logits_hist_data_bar_values")}
    logits = site.describe_atom(arrays, atom)["logits"]
    sign = -1 if flipped else 1
    ends = (logits["raised"], logits["lowered"])[::sign]
    low, high = logits["histogram"]["edges"]
    counts = logits["histogram"]["counts"]
    middles = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    return {
        "pos_str": [row["text"] for row in ends[0]],
        "pos_values": _round(sign * row["value"] for row in ends[0]),
        "neg_str": [row["text"] for row in ends[1]],
        "neg_values": _round(sign * row["value"] for row in ends[1]),
        "logits_hist_data_bar_heights": counts[::sign],
        "logits_hist_data_bar_values": _round((sign * middles)[::sign]),
    }


def _list_activations(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return examples under their bins; the top contexts have a bin of −1, as sae-dashboard says.

    A quantile group is a bin from its smallest peak to its largest; it stands for an equal share
    of the contexts in which the feature fires.
    """
    examples = described["examples"]
    bins: dict[int, tuple[float, float, float]] = {0: (-1.0, described["maximum"], -1.0)}
    groups = sorted({example["group"] for example in examples} - {0})
    for group in groups:
        peaks = [example["peak"] for example in examples if example["group"] == group]
        bins[group] = (min(peaks), max(peaks), 1 / len(groups))
    activations = []
    for example in examples:
        low, high, share = bins[example["group"]]
        activations.append(
            {
                "bin_min": round(low, DIGITS),
                "bin_max": round(high, DIGITS),
                "bin_contains": round(share, DIGITS),
                "tokens": example["tokens"],
                "values": _round(example["values"]),
                "qualifying_token_index": example["position"] - example["first"],
            }
        )
    return activations


def export_activations(site: SiteFeatures, name: str, output: str | Path) -> None:
    """Write the examples of a dictionary as one safetensors file for delphi-like tools.

    ``tokens`` int64 (c, longest): ids of the documents, 0 behind their end; ``lengths`` and
    ``documents`` int64 (c,); ``locations`` int64 (n, 3): row in ``tokens``, position, feature, in
    rising order; ``activations`` float32 (n,). Only coefficients that an example shows are there.

    Parameters
    ----------
    site : SiteFeatures
        A site of text.
    name : str
        Name of the dictionary in the site.
    output : path
        The file.

    Raises
    ------
    ValueError
        If the site is not of text.
    """
    arrays = _read_text_site(site, name)
    a = arrays.arrays
    documents = np.unique(a["example_document"])
    contexts = [site.find_context(int(document)) for document in documents]
    ids = [context[0] for context in contexts if context is not None]
    lengths = np.array([len(one) for one in ids], np.int64)
    tokens = np.zeros((len(ids), max(lengths, default=0)), np.int64)
    for row, one in enumerate(ids):
        tokens[row, : len(one)] = one
    sizes = np.diff(a["value_start"])
    example = np.repeat(np.arange(len(sizes)), sizes)
    feature = np.repeat(np.arange(len(a["count"])), np.diff(a["example_start"]))
    row_of = np.searchsorted(documents, a["example_document"])
    locations = np.stack([row_of[example], a["value_position"], feature[example]], axis=1)
    # an example may be both a top context and in a group
    locations, first = np.unique(locations.astype(np.int64), axis=0, return_index=True)
    tensors = {
        "tokens": tokens,
        "lengths": lengths,
        "documents": documents.astype(np.int64),
        "locations": np.ascontiguousarray(locations),
        "activations": np.ascontiguousarray(a["value"][first]),
    }
    with replace_file(output) as temporary:
        save_file(tensors, temporary)
