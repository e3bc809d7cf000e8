"""README's table is that of the run whose tables are kept, and its claims follow from them."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from workflow.experiment import Experiment
from workflow.layers import read_layers
from workflow.readme import (
    BASELINES,
    BEGIN,
    END,
    REFERENCE,
    SHOWN,
    TABLES,
    find_table,
    main,
    render,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
KEPT = {name: ROOT / REFERENCE / name for name in SHOWN}
CONFIGS = {"minilm": ROOT / "config.yaml", "smollm2": ROOT / "experiments" / "smollm2.yaml"}
SIZES = {"minilm": ("layer4", "16"), "smollm2": ("layer15", "32")}


class Run:
    """The kept tables of an experiment, as text, at the size of README's table."""

    def __init__(self, folder: Path, experiment: str = "minilm") -> None:
        site, k = SIZES[experiment]
        table, differences, matched, budgets = (
            pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in TABLES
        )
        self.table = table[(table["site"] == site) & (table["k"] == k)].set_index("method")
        self.differences = differences[
            (differences["site"] == site) & (differences["k"] == k)
        ].set_index("method")
        self.matched, self.budgets = matched, budgets[budgets["k"] == k].set_index("method")
        self.baselines = (
            pd.read_csv(folder / BASELINES).set_index("score")["value"].to_dict()
            if (folder / BASELINES).is_file()
            else {}
        )

    def verdicts(self, score: str) -> pd.Series:
        """Verdicts on the first method beside each SAE."""
        rows = self.differences[self.differences["score"].str.startswith(score)]
        return rows.loc[rows.index.str.endswith("-sae"), "verdict"]

    def value(self, method: str, score: str) -> tuple[float, float]:
        """A mean and half its interval (0 without one)."""
        parts = self.table.loc[method, score].removesuffix(" *").split(" ± ")
        return float(parts[0]), float(parts[1]) if len(parts) > 1 else 0.0


def explains_most(run: Run) -> bool:
    verdicts = run.verdicts("variance explained")
    best = run.table["variance explained"].str.endswith(" *")
    return bool(len(verdicts)) and (verdicts == "better").all() and _are_dbksvd(best)


def explains_most_at_equal_budget(run: Run) -> bool:
    columns = [name for name in run.budgets if name.startswith("variance explained")]
    return all(_are_dbksvd(run.budgets[name].str.endswith(" *")) for name in columns)


def explains_most_at_equal_l0(run: Run) -> bool:
    pairs = run.matched
    ours = pairs["method"].isin(["dbksvd", "dbksvd-signed"]) & pairs["other"].str.endswith("-sae")
    texts = pairs.loc[ours & (pairs["site"] == "layer4"), "variance explained"]
    told = texts.str.startswith("+") & ~texts.str.contains("noise")
    return bool(len(texts)) and told.all()


def encoder_costs_most(run: Run) -> bool:
    cost = {method: run.value(method, "encoder MFLOP a token")[0] for method in run.table.index}
    return cost["dbksvd-signed"] == max(cost.values())


def probes_hardly_tell_apart(run: Run) -> bool:
    verdicts = run.verdicts("probing")
    return bool(len(verdicts)) and (verdicts == "not told apart").mean() >= 0.75


def permuted_probes_like_its_sae(run: Run) -> bool:
    scores = ["probing, 1 atom", "probing, 5 atoms"]
    pairs = [(run.value("topk-sae", s), run.value("permuted-topk", s)) for s in scores]
    return all(abs(own[0] - other[0]) <= own[1] + other[1] for own, other in pairs)


def seeds_agree_more(run: Run) -> bool:
    agreement = {
        method: float(text) if (text := str(value).split(" ")[0]) else 0.0
        for method, value in run.table["stability (PW-MCC)"].items()
    }
    ours = min(agreement["dbksvd"], agreement["dbksvd-signed"])
    saes = [value for method, value in agreement.items() if method.endswith("-sae") and value]
    return bool(saes) and ours > max(saes)


def mean_explains_more(run: Run) -> bool:
    mean, exact = (run.value(name, "variance explained") for name in ("dbksvd-mean", "dbksvd"))
    return mean[0] - exact[0] > mean[1] + exact[1]


def keeps_more_of_the_loss(run: Run) -> bool:
    verdicts = run.verdicts("CE loss score")
    return bool(len(verdicts)) and (verdicts == "better").all()


def none_is_like_das(run: Run) -> bool:
    scores = [run.value(method, "facts") for method in run.table.index]
    das = run.baselines["facts"]
    return das > 0.5 and all(mean < das and mean - half <= 0.5 for mean, half in scores)


def others_tell_nothing_apart(run: Run) -> bool:
    verdicts = pd.concat(
        [run.verdicts(name) for name in ("probing", "absorption", "RAVEL", "facts")]
    )
    return len(verdicts) > 12 and (verdicts == "not told apart").all()


def a_tenth_is_won_back(run: Run) -> bool:
    score = "CE loss score"
    shares = []
    for before, after in (("dbksvd-signed", "dbksvd-e2e"), ("topk-sae", "topk-e2e")):
        costs = 1 - run.value(before, score)[0]
        shares.append(1 - (1 - run.value(after, score)[0]) / costs)
    return all(0.05 < share < 0.15 for share in shares)


# A sentence of README, and what the tables must say for it.
CLAIMS: list[tuple[str, Callable[[Run], bool]]] = [
    (r"DB-KSVD explains the most variance", explains_most),
    (r"at equal samples and equal seconds \(`budgets\.csv`\)", explains_most_at_equal_budget),
    (r"at equal L0 \(`matched\.csv`\)", explains_most_at_equal_l0),
    (r"Its encoder costs the most operations", encoder_costs_most),
    (r"Probes on few atoms hardly tell DB-KSVD and the SAEs apart", probes_hardly_tell_apart),
    (r"permuted decoder rows probes like the SAE itself", permuted_probes_like_its_sae),
    (r"DB-KSVD then explains more variance", mean_explains_more),
    (r"Seeds of DB-KSVD agree more than those of SAEs", seeds_agree_more),
]
CLAIMS_OF_MODEL: list[tuple[str, Callable[[Run], bool]]] = [
    (r"DB-KSVD keeps more of its loss than the SAEs do at the same L0", keeps_more_of_the_loss),
    (r"No dictionary separates facts as DAS does, and none does better than doing", none_is_like_das),
    (r"Neither probes nor absorption nor RAVEL nor facts tell DB-KSVD from", others_tell_nothing_apart),
    (r"end-to-end training win back a tenth of what a dictionary costs here", a_tenth_is_won_back),
]  # fmt: skip
# Bullets about other things than these tables; other tests and pages stand for them.
ELSEWHERE = [
    *(r"No SAE has converged", r"SAEs train on centred activations"),
    r"of DB-KSVD's lead over the TopK SAE is its pursuit",  # docs/encoders.md
]


def _are_dbksvd(best: pd.Series) -> bool:
    names = best[best].index
    return len(names) > 0 and all("dbksvd" in name for name in names)


def list_bullets(experiment: str) -> list[str]:
    text = README.split(BEGIN.format(experiment))[1].split(END)[1]
    text = re.split(r"!\[|^## ", text, flags=re.M)[0]
    return [" ".join(bullet.split()) for bullet in re.split(r"^- ", text, flags=re.M)[1:]]


@pytest.mark.parametrize("experiment", SHOWN)
def test_table_is_that_of_the_kept_run(experiment: str):
    config = Experiment(read_layers([str(CONFIGS[experiment])], {}))
    assert find_table(README, experiment) == render(KEPT[experiment], config), "make readme"


OF_EACH = [
    *(("minilm", *claim) for claim in CLAIMS),
    *(("smollm2", *claim) for claim in CLAIMS_OF_MODEL),
]


@pytest.mark.parametrize(
    ("experiment", "sentence", "holds"), OF_EACH, ids=[holds.__name__ for _, _, holds in OF_EACH]
)
def test_claim_stands_in_readme_and_follows_from_the_tables(
    experiment: str, sentence: str, holds: Callable[[Run], bool]
):
    assert any(re.search(sentence, bullet) for bullet in list_bullets(experiment))
    assert holds(Run(KEPT[experiment], experiment)), sentence


@pytest.mark.parametrize("experiment", SHOWN)
def test_every_bullet_is_checked_and_none_holds_a_score(experiment: str):
    checked = [sentence for name, sentence, _ in OF_EACH if name == experiment] + ELSEWHERE
    assert len(list_bullets(experiment)) > 2
    for bullet in list_bullets(experiment):
        assert any(re.search(sentence, bullet) for sentence in checked), bullet
        assert not re.search(r"(?<!\d)0?\.\d\d", bullet), f"a number typed by hand: {bullet}"


COLUMNS = (
    "site,method,n_atoms,k,seeds,variance explained,F1,"
    '"probing, 1 atom","probing, 5 atoms",fit seconds'
)
RUN = {
    "table.csv": f"""{COLUMNS}
layer4,pca,384,16,1,0.480 ± 0.003,,0.665 ± 0.031 *,0.600 ± 0.020,1
layer4,dbksvd,512,8,1,0.700 *,,0.600,,1
layer4,topk-sae,512,16,3,0.692 ± 0.003,,0.640 ± 0.040,0.733 ± 0.030 *,17 ± 2
layer4,dbksvd,512,16,3,0.748 ± 0.003 *,,0.697 ± 0.021 *,0.727 ± 0.020 *,18 ± 0
layer4,permuted-topk,512,16,1,-0.521 ± 0.010,,0.703 ± 0.030 *,0.735 ± 0.030 *,0
synthetic,dbksvd,128,7,1,,0.405,,,1
""",
    "differences.csv": "site\n",
    "matched.csv": "site\n",
    "budgets.csv": "site\n",
    "scores.csv": """site,method,n_atoms,k,seed,eval,metric,value
layer4,dbksvd,512,16,0,sparse_probing_sae_probes,llm_test_accuracy,0.8671
layer4,dbksvd,512,16,0,heldout,explained_variance,0.748
""",
}


def test_command_writes_the_table_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    for name, text in RUN.items():
        (tmp_path / "run" / name).write_text(text)
    (tmp_path / "README.md").write_text(f"before\n{BEGIN.format('minilm')}\nold\n{END}\nafter\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", str(ROOT / "config.yaml"), "--run", "run"]
    monkeypatch.setattr("sys.argv", ["readme", *arguments])
    main()
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    minus = "\N{MINUS SIGN}"
    assert find_table(text).splitlines() == [
        "| method | variance explained | probing, 1 atom | probing, 5 atoms | F1 | fit seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        # with 5 atoms no trained method is told apart from the best
        "| DB-KSVD | **.748 ± .003** | **.697 ± .021** | .727 ± .020 | .405 | 18 |",
        "| TopK SAE | .692 ± .003 | .640 ± .040 | .733 ± .030 |  | 17 |",
        "| PCA | .480 ± .003 | **.665 ± .031** | .600 ± .020 |  | 1 |",
        f"| TopK SAE, permuted decoder | {minus}.521 ± .010 | **.703 ± .030** | .735 ± .030 |  | 0 |",
        "| probe on all raw activations |  | .867 | .867 |  |  |",
    ]
    kept = tmp_path / REFERENCE / "minilm"
    assert {path.name for path in kept.iterdir()} == {*TABLES, BASELINES}


TWO = f"{BEGIN.format('minilm')}\none\n{END}\n{BEGIN.format('smollm2')}\ntwo\n{END}\n"


def test_each_experiment_has_its_own_table():
    assert (find_table(TWO), find_table(TWO, "smollm2")) == ("one", "two")


@pytest.mark.parametrize("readme", ["no table", f"{END} {BEGIN.format('minilm')}", TWO + TWO])
def test_a_readme_without_its_marks_is_refused(readme: str):
    with pytest.raises(ValueError, match="expected one table between"):
        find_table(readme)


def test_an_experiment_without_a_table_in_readme_is_refused(monkeypatch: pytest.MonkeyPatch):
    config = str(ROOT / "experiments" / "tiny.yaml")
    monkeypatch.setattr("sys.argv", ["readme", "--config", config])
    with pytest.raises(SystemExit, match="expected one of minilm, smollm2, got tiny"):
        main()


HEAD = 'site,method,n_atoms,k,seeds,variance explained,"probing, 1 atom","probing, 5 atoms"'


def write_run(
    folder: Path, dbksvd: str, topk: str, verdict: str, noise: str, agreement: float = 0.58
) -> None:
    """Write a small run: DB-KSVD and a TopK SAE, whose variance explained and verdict are given.

    `agreement` is that of the seeds of the TopK SAE.
    """

    def flops(method: str) -> float:
        return 1.0 if "dbksvd" in method else 0.5

    def agree(method: str) -> str:
        seeds = {"dbksvd-signed": 0.7, "dbksvd": 0.69, "topk-sae": agreement}
        return f"{seeds[method]:.3f} ± 0.002" if method in seeds else ""

    rows = [("dbksvd-signed", dbksvd), ("dbksvd", dbksvd), ("topk-sae", topk)]
    rows += [("dbksvd-mean", f"{float(dbksvd[:5]) + 0.02:.3f} ± 0.001 *"), ("permuted-topk", "0.1")]
    table = [
        f"layer4,{method},512,16,3,{explained},0.6 ± 0.1 *,0.7 ± 0.1 *,{agree(method)},"
        f"{flops(method)}"
        for method, explained in rows
    ]
    scores = [("variance explained", verdict), ("probing, 1 atom", "not told apart")]
    differences = [f'layer4,topk-sae,16,"{score}",{word}' for score, word in scores]
    budgets = [
        f"{name},16,{text},{text}" for name, text in (("dbksvd", dbksvd), ("topk-sae", topk))
    ]
    for name, head, lines in [
        ("table.csv", f"{HEAD},stability (PW-MCC),encoder MFLOP a token", table),
        ("differences.csv", "site,method,k,score,verdict", differences),
        ("matched.csv", "site,method,other,variance explained", [f"layer4,dbksvd,topk-sae,{noise}"]),
        ("budgets.csv", "method,k,variance explained at equal samples,variance explained at equal seconds", budgets),
    ]:  # fmt: skip
        (folder / name).write_text("\n".join([head, *lines]) + "\n")


OF_VARIANCE = [explains_most, explains_most_at_equal_budget, explains_most_at_equal_l0]


@pytest.mark.parametrize("holds", [holds for _, holds in CLAIMS])
def test_claims_hold_for_a_run_that_says_so(holds: Callable[[Run], bool], tmp_path: Path):
    write_run(tmp_path, "0.700 ± 0.001 *", "0.600 ± 0.001", "better", "+0.100 ± 0.002")
    assert holds(Run(tmp_path))


def test_claim_of_agreement_can_fail(tmp_path: Path):
    explained = ("0.700 ± 0.001 *", "0.600 ± 0.001")
    write_run(tmp_path, *explained, "better", "+0.100 ± 0.002", agreement=0.695)
    assert not seeds_agree_more(Run(tmp_path))


@pytest.mark.parametrize("holds", OF_VARIANCE)
@pytest.mark.parametrize(
    ("dbksvd", "topk", "verdict", "noise"),
    [
        ("0.600 ± 0.001", "0.700 ± 0.001 *", "worse", "-0.100 ± 0.002"),
        ("0.700 ± 0.001 *", "0.699 ± 0.001 *", "not told apart", "+0.001 ± 0.003 (noise)"),
    ],
)
def test_claims_do_not_hold_for_a_run_that_says_otherwise(
    holds: Callable[[Run], bool], dbksvd: str, topk: str, verdict: str, noise: str, tmp_path: Path
):
    write_run(tmp_path, dbksvd, topk, verdict, noise)
    assert not holds(Run(tmp_path))
