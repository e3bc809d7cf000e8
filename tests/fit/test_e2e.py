"""Dictionaries trained on inside their model: gradients, what is left alone, and going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from dbksvd.activations.from_text import extract_slice
from dbksvd.activations.sharding import write_shards
from dbksvd.activations.shards import ActivationShards
from dbksvd.base.files import read_json
from dbksvd.base.settings import parse
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings, encode_with
from dbksvd.dictionaries.loading import load_dictionary
from dbksvd.fit.e2e import training
from dbksvd.fit.e2e.held_support import decode_support
from dbksvd.fit.e2e.losses import differentiate_kl, measure_downstream
from dbksvd.fit.e2e.method import E2E, E2E_DOWNSTREAM, check_base
from dbksvd.fit.e2e.spliced_model import SplicedModel
from dbksvd.fit.e2e.texts import TokenBatch, read_batches
from dbksvd.fit.e2e.trained import TrainedSAE
from dbksvd.fit.method import FitSizes
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask
from dbksvd.models.loading import load_model
from dbksvd.text.documents import iterate_documents
from dbksvd.text.tokens import tokenize_documents

D, M, K, LAYER = 16, 24, 3, 2
EXTRACTION = {"layer": LAYER, "context_length": 16, "batch_size": 4}
ROWS = {"n_train_tokens": 300, "n_heldout_tokens": 100}


@pytest.fixture(scope="module")
def extraction(tiny_causal: Path) -> dict[str, Any]:
    return {"model": {"name": str(tiny_causal), "device": "cpu"}, **EXTRACTION, **ROWS}


@pytest.fixture(scope="module")
def shards(extraction, text_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spliced")
    extract_slice(extraction, 0, folder / "part.h5", text=text_folder)
    write_shards([folder / "part.h5"], {"rows_per_shard": 200}, folder / "shards")
    return folder / "shards"


def make_pursuit(shards: Path, folder: Path, **settings: Any) -> Path:
    """Save a dictionary of random samples."""
    train = ActivationShards.open(shards)
    centred = train.read(0, M) - train.mean
    pursuit = PursuitSettings(**{"k": K, "method": "ols", **settings})
    Dictionary(normalize(centred, dim=1), train.mean, pursuit, train.describe()).save(folder)
    return folder


def make_sae(shards: Path, folder: Path, kind: str) -> Path:
    """Save an SAE of SAELens or of this package, with atoms of random samples."""
    from sae_lens.registry import get_sae_class

    from dbksvd.dictionaries.registration import register

    register()
    train = ActivationShards.open(shards)
    own = {"topk": {"k": K}, "switch": {"k": K, "n_experts": 2}, "kron": {"k": K, "n_heads": 3}}
    sizes = {"kron": {"base": 2, "extension": 4}}
    sae_class, config_class = get_sae_class(kind)
    torch.manual_seed(1)
    options = own.get(kind, {}) | sizes.get(kind, {})
    sae = sae_class(config_class(d_in=D, d_sae=M, **options))
    atoms = normalize(train.read(0, M) - train.mean, dim=1)
    with torch.no_grad():
        sae.W_dec.copy_(atoms)
        sae.b_dec.copy_(train.mean)
        if hasattr(sae, "W_enc"):
            sae.W_enc.copy_(atoms.T)
        if hasattr(sae, "threshold"):
            sae.threshold.copy_(torch.full((M,), 0.1 * float(train.scale)))
    for name, value in train.describe().items():
        setattr(sae.cfg.metadata, name, value)
    sae.save_model(str(folder))
    return folder


def make_task(
    base: Path, shards: Path, extraction: Any, text: Path, method: Any = E2E, **settings: Any
) -> FitTask:
    train = ActivationShards.open(shards)
    told = {"of": "other", "training_tokens": 400, "heldout_tokens": 100, "lr": 0.01}
    told |= {"batch_tokens": 60, **settings}
    return FitTask(
        train=train,
        heldout=ActivationShards.open(shards, split="heldout"),
        n_atoms=M,
        k=K,
        seed=0,
        settings=parse(method.settings, told),
        device=torch.device("cpu"),
        checkpoint=base.parent / "checkpoint",
        metadata=train.describe(),
        bases=(base,),
        extraction=extraction,
        text=text,
    )


# --- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nonnegative", [False, True])
def test_least_squares_on_the_support_are_the_codes_and_have_the_right_gradient(nonnegative):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    atoms = normalize(torch.randn(9, 6, generator=generator, dtype=torch.float64), dim=1)
    settings = PursuitSettings(k=3, method="ols", nonnegative=nonnegative, threshold=1.2)
    codes = encode_with(x, atoms, settings)
    assert int(codes.l0.min()) < int(codes.l0.max())  # some slots are not used
    found = decode_support(x, atoms, codes)
    torch.testing.assert_close(found, codes.decode(atoms))
    assert torch.autograd.gradcheck(
        lambda x, atoms: decode_support(x, atoms, codes),
        (x.clone().requires_grad_(), atoms.clone().requires_grad_()),
    )


@pytest.fixture
def spliced(extraction) -> tuple[SplicedModel, TokenBatch]:
    """A model in float64, and a padded batch with a special place."""
    loaded = load_model(extraction["model"])
    loaded = replace(loaded, model=loaded.model.double())
    ids = torch.arange(4, 4 + 14).reshape(2, 7) % 20
    is_text = torch.ones_like(ids, dtype=torch.bool)
    is_text[0, 0] = is_text[1, 5:] = False
    return SplicedModel(loaded, LAYER, None), TokenBatch(ids, is_text)


def run_whole(model: SplicedModel, batch: TokenBatch, found: Any = None) -> tuple[Any, list[Any]]:
    """Return logits and residual streams of a plain pass with hooks, and no block skipped."""
    kept: list[torch.Tensor] = []
    handles = []

    def splice(_block, _inputs, output):
        bare = isinstance(output, torch.Tensor)
        hidden = output if bare else output[0]
        if found is not None:
            hidden = hidden.clone()
            hidden[batch.is_text] = found
        return hidden if bare else (hidden, *output[1:])

    def keep(_block, _inputs, output):
        kept.append(output if isinstance(output, torch.Tensor) else output[0])

    handles.append(model.blocks[LAYER - 1].register_forward_hook(splice))
    handles += [block.register_forward_hook(keep) for block in model.blocks[LAYER:]]
    logits = model.model(input_ids=batch.ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits[batch.is_text], [each[batch.is_text] for each in kept]


def test_losses_and_gradients_are_those_of_the_whole_model_in_float64(spliced, monkeypatch):
    model, batch = spliced
    monkeypatch.setattr("dbksvd.fit.e2e.losses.CHUNK", 3)
    original = model.read(batch)
    start = original.site[original.spliced]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    found = (start + 0.3 * start.std() * noise).requires_grad_()

    later = model.run_above(batch, original, found)
    kl, gradient = differentiate_kl(model, original.later[-1], later[-1])
    downstream = measure_downstream(original.later, later)
    (2.0 * (later[-1] * gradient).sum() + 3.0 * downstream).backward()

    same = found.detach().clone().requires_grad_()
    logits, streams = run_whole(model, batch, same)
    with torch.no_grad():
        plain, plain_streams = run_whole(model, batch)
    wanted_kl = torch.nn.functional.kl_div(
        logits.log_softmax(-1), plain.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    errors = [
        ((after - before) ** 2).sum() / ((before - before.mean(0)) ** 2).sum()
        for before, after in zip(plain_streams, streams, strict=True)
    ]
    (2.0 * wanted_kl + 3.0 * torch.stack(errors).mean()).backward()
    assert kl == pytest.approx(float(wanted_kl.detach()), rel=1e-9)
    assert float(downstream.detach()) == pytest.approx(
        float(torch.stack(errors).mean().detach()), rel=1e-9
    )
    assert float(same.grad.abs().max()) > 0
    torch.testing.assert_close(found.grad, same.grad, rtol=1e-7, atol=1e-12)


def test_gradient_of_the_atoms_is_that_of_finite_differences(spliced):
    model, batch = spliced
    original = model.read(batch)
    x = original.site[original.spliced]
    bias = x.mean(dim=0)
    generator = torch.Generator().manual_seed(2)
    atoms = normalize(torch.randn(M, D, generator=generator, dtype=torch.float64), dim=1)
    codes = encode_with(x - bias, atoms, PursuitSettings(k=K, method="ols"))

    def find_loss(atoms):
        found = decode_support(x - bias, atoms, codes) + bias
        later = model.run_above(batch, original, found)
        return differentiate_kl(model, original.later[-1], later[-1]), later

    learned = atoms.clone().requires_grad_()
    (_, gradient), later = find_loss(learned)
    (later[-1] * gradient).sum().backward()
    step = 1e-5
    for atom in codes.indices[codes.values != 0].unique()[:4].tolist():
        for place in (0, 7):
            moved = []
            for sign in (1, -1):
                shifted = atoms.clone()
                shifted[atom, place] += sign * step
                moved.append(find_loss(shifted)[0][0])
            slope = (moved[0] - moved[1]) / (2 * step)
            assert float(learned.grad[atom, place]) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_places_over_the_norm_limit_and_special_ones_keep_their_activations(spliced):
    model, batch = spliced
    norms = torch.linalg.vector_norm(model.read(batch).site, dim=-1)
    model.norm_limit = float(norms[batch.is_text].median())
    original = model.read(batch)
    assert torch.equal(original.spliced, batch.is_text & (norms <= model.norm_limit))
    assert 0 < int(original.spliced.sum()) < int(batch.is_text.sum())
    same = model.run_above(batch, original, original.site[original.spliced])
    for before, after in zip(original.later, same, strict=True):
        torch.testing.assert_close(after, before)


# --- fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [E2E, E2E_DOWNSTREAM])
@pytest.mark.parametrize("kind", ["signed", "nonnegative", "topk", "switch", "kron"])
def test_training_lowers_what_the_dictionary_costs(
    kind, method, shards, extraction, text_folder, tmp_path
):
    base = tmp_path / "base"
    if kind in ("signed", "nonnegative"):
        make_pursuit(shards, base, nonnegative=kind == "nonnegative")
    else:
        make_sae(shards, base, kind)
    task = make_task(base, shards, extraction, text_folder, method, epochs=4)
    result = method.fit(task)
    result.save(tmp_path / "after")
    before, after = result.log
    assert after["kl"] < 0.97 * before["kl"]
    assert after["samples_seen"] == 4 * 400
    assert before["ce_loss_original"] == after["ce_loss_original"]
    seal = read_json(tmp_path / "after/fit.json")
    assert seal["kl_after"] == after["kl"]
    assert seal["of"] == "other"
    loaded = load_dictionary(tmp_path / "after")
    norms = torch.linalg.vector_norm(loaded.atoms, dim=1)
    torch.testing.assert_close(norms, torch.ones(M), rtol=0, atol=1e-5)
    rows = task.heldout.read(0, 50)
    assert int(loaded.encode(rows).l0.max()) <= K
    assert not torch.equal(loaded.atoms, load_dictionary(base).atoms)
    if kind in ("signed", "topk"):  # others may have fewer
        assert loaded.encode(rows).l0.double().mean() == pytest.approx(before["l0"], rel=0.05)


def read_weights(folder: Path) -> bytes:
    return (folder / "sae_weights.safetensors").read_bytes()


@pytest.mark.parametrize("held", [0, 5000, training.HELD_BYTES])
def test_what_is_kept_in_memory_changes_nothing(
    held, shards, extraction, text_folder, tmp_path, monkeypatch
):
    base = make_pursuit(shards, tmp_path / "base")
    task = make_task(base, shards, extraction, text_folder, epochs=2)
    E2E.fit(task).save(tmp_path / "first")
    monkeypatch.setattr(training, "HELD_BYTES", held)
    E2E.fit(task).save(tmp_path / "second")
    assert read_weights(tmp_path / "first") == read_weights(tmp_path / "second")


@pytest.mark.parametrize("kind", ["pursuit", "topk"])
def test_an_interrupted_training_ends_with_the_same_bytes(
    kind, shards, extraction, text_folder, tmp_path, monkeypatch
):
    base = tmp_path / "base"
    if kind == "topk":
        make_sae(shards, base, "topk")
    else:
        make_pursuit(shards, base)
    task = make_task(base, shards, extraction, text_folder, checkpoint_seconds=0)
    E2E.fit(replace(task, checkpoint=tmp_path / "none")).save(tmp_path / "whole")
    step = training.SplicedLoop.step
    count = 0

    def stop(loop):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return step(loop)

    monkeypatch.setattr(training.SplicedLoop, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        E2E.fit(task)
    monkeypatch.setattr(training.SplicedLoop, "step", step)
    starts = []
    restore = training.SplicedLoop.restore

    def watch(loop):
        restore(loop)
        starts.append(loop.steps)

    monkeypatch.setattr(training.SplicedLoop, "restore", watch)
    E2E.fit(task).save(tmp_path / "resumed")
    assert starts == [5]
    assert read_weights(tmp_path / "resumed") == read_weights(tmp_path / "whole")


def test_thresholds_give_as_many_non_zeros_as_before(shards, extraction, text_folder, tmp_path):
    base = make_pursuit(shards, tmp_path / "pursuit", k=9, threshold=0.05)
    sae = make_sae(shards, tmp_path / "sae", "jumprelu")
    for folder in (base, sae):
        task = make_task(folder, shards, extraction, text_folder, epochs=2)
        rows = task.train.read(0, len(task.train))
        before = float(load_dictionary(folder).encode(rows).l0.double().mean())
        result = E2E.fit(replace(task, k=round(before)))
        result.save(tmp_path / f"{folder.name}-after")
        after = load_dictionary(tmp_path / f"{folder.name}-after")
        heldout = result.log[0]["l0"]
        assert float(after.encode(rows).l0.double().mean()) == pytest.approx(heldout, rel=0.05)
        assert 1 < before < M / 2
    assert result.summary.get("mean_k") is None


def test_the_cost_of_the_base_is_its_own_too(shards, extraction, text_folder, tmp_path):
    base = make_pursuit(shards, tmp_path / "base")
    task = make_task(base, shards, extraction, text_folder)
    E2E.fit(task).save(tmp_path / "once")
    again = E2E.fit(replace(task, bases=(tmp_path / "once",)))
    assert again.log[0]["samples_seen"] == 400
    assert again.summary["samples_seen"] == 800
    assert again.summary["seconds"] > read_json(tmp_path / "once/fit.json")["seconds"] > 0


# --- bad input ---------------------------------------------------------------------------------


def test_what_is_wrong_is_told_in_one_line(shards, extraction, text_folder, tiny_encoder, tmp_path):
    base = make_pursuit(shards, tmp_path / "base")

    def run(message: str, method: Any = E2E, **changes: Any) -> None:
        settings = changes.pop("settings", {})
        task = make_task(base, shards, extraction, text_folder, method, **settings)
        with pytest.raises(ValueError, match=message) as caught:
            method.fit(replace(task, **changes))
        assert "\n" not in str(caught.value)

    encoder = extraction | {"model": {"name": str(tiny_encoder), "device": "cpu"}}
    run("model: expected a causal language model for e2e, got .* encoder", extraction=encoder)
    run("expected 1000000 train tokens for methods: training_tokens, got",
        settings={"training_tokens": 1_000_000})  # fmt: skip
    run("expected the residual stream behind a block for e2e, got mlp of layer 2",
        extraction=extraction | {"place": "mlp"})  # fmt: skip
    run("e2e: expected the model and its documents, got none", text=None)
    run("activations.layers: expected a layer before the last, 3, for e2e_downstream, got 3",
        E2E_DOWNSTREAM, extraction=extraction | {"layer": 3})  # fmt: skip
    own = make_pursuit(shards, tmp_path / "elsewhere")
    wrong = Dictionary.load(own)
    wrong.metadata["hook_name"] = "blocks.0.hook_resid_post"
    wrong.save(own)
    run(r"expected a dictionary of blocks.1.hook_resid_post of this model, of width 16, got one of "
        r"blocks.0.hook_resid_post", bases=(own,))  # fmt: skip
    narrow = Dictionary(torch.eye(4), torch.zeros(4), PursuitSettings(k=1))
    narrow.save(tmp_path / "narrow")
    run("of width 16, got one of None, of width 4", bases=(tmp_path / "narrow",))
    run("of: expected a pursuit with refit: true",
        bases=(make_pursuit(shards, tmp_path / "mp", method="mp", refit=False),))  # fmt: skip
    run("lr: expected a rate at which training is stable", settings={"lr": 1e30, "epochs": 3})


def test_what_it_begins_from_is_checked_before_a_fit():
    sae, settings = find_method("sae").settings, parse(E2E.settings, {"of": "other"})
    for base in ({"architecture": "topk"}, {"architecture": "switch"}):
        check_base(settings, parse(sae, base))
    check_base(settings, parse(find_method("dbksvd").settings, {}))
    with pytest.raises(ValueError, match="of: expected a dictionary that keeps its number"):
        check_base(settings, parse(sae, {"architecture": "gated"}))


def test_the_work_of_a_fit_is_counted():
    settings = parse(E2E.settings, {"of": "other", "training_tokens": 1000, "heldout_tokens": 2})
    sizes = FitSizes(M, K, D, 100, 10, model_parameters=1000, depth=0.5)
    # whole passes, and from the middle on forwards and, at twice the work, backwards
    expected = 2 * 1000 * (1000 * (1 + 0.5 + 0.5) + 2 * 2 * 1.5)
    assert E2E.plan(settings, sizes).model == pytest.approx(expected)
    assert E2E.plan(settings, replace(sizes, depth=0.75)).model < expected


@pytest.mark.parametrize("batch_tokens", [1, 40, 10**6])
def test_batches_hold_the_wanted_tokens_once(batch_tokens, extraction, text_folder):
    loaded = load_model(extraction["model"])
    options = {"key": "tokens", "context_length": 8}
    batches = read_batches(loaded, text_folder, "train", 301, batch_tokens=batch_tokens, **options)
    assert sum(int(batch.is_text.sum()) for batch in batches) == 301
    sizes = [batch.ids.numel() for batch in batches if len(batch.ids) > 1]
    assert max(sizes, default=0) <= batch_tokens
    assert (len(batches) == 1) == (batch_tokens == 10**6)
    assert (len(sizes) == 0) == (batch_tokens == 1)
    found = [
        tuple(row[mask].tolist())
        for b in batches
        for row, mask in zip(b.ids, b.is_text, strict=True)
    ]
    documents = tokenize_documents(
        iterate_documents(text_folder, "train"),
        loaded.tokenizer,
        context_length=8,
        tokens_per_document=None,
    )
    wanted = [tuple(document.ids[document.kept].tolist()) for document in documents]
    assert len(set(found) - set(wanted)) <= 1  # the last one may be cut


def test_logits_of_a_chunk_are_those_of_the_whole_pass(spliced):
    model, batch = spliced
    original = model.read(batch)
    with torch.no_grad():
        whole, _ = run_whole(model, batch)
        np.testing.assert_allclose(model.find_logits(original.later[-1]), whole, rtol=1e-9)


def test_an_sae_keeps_its_own_encoder(shards, tmp_path):
    dictionary = load_dictionary(make_sae(shards, tmp_path / "sae", "topk"))
    trained = TrainedSAE(dictionary)
    x = ActivationShards.open(shards).read(0, 20)
    found, l0 = trained.reconstruct(x)
    torch.testing.assert_close(found, dictionary.decode(dictionary.encode(x)))
    assert 0 < l0 <= K
    found.sum().backward()
    assert all(float(trained.weights[name].grad.abs().sum()) > 0 for name in ("W_enc", "W_dec"))
