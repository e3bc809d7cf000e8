"""Names of the data sets that evals read: those that sae-probes carries, and those of the hub."""

from __future__ import annotations

# Values of the setting ``data``: texts that sae-probes carries, those of SAEBench, on the hub, or
# the run's own held-out documents.
BUNDLED, HUB, HELDOUT = "bundled", "hub", "heldout"

# Of the data sets that sae-probes carries: a varied eight, the default wherever an eval reads text.
SCORING_SOURCES = (
    "139_news_class_Politics",  # news: politics or not
    "96_spam_is",  # messages: spam or not
    "92_glue_sst2",  # film reviews: positive or not
    "105_click_bait",  # headlines: click bait or not
    "159_code_Python",  # code: Python or not
    "133_context_type_Causality",  # questions: about a cause or not
    "110_aimade_humangpt3",  # answers: by a person or a model
    "60_wikidata_occupation_isathlete",  # people: athlete or not
)
# sae-probes carries one set per class; its "rest" looks like source code, so class 3 is missing.
AG_NEWS_SOURCES = ("161_agnews_0", "162_agnews_1", "163_agnews_2")
# Reviews of films and of products, each of them positive and negative.
CROSSED_SOURCES = ("113_movie_sent", "157_amazon_5star")

# SAEBench's own, under its own names; it reads classes of one data set as three.
_AMAZON = "canrager/amazon_reviews_mcauley_1and5"
HUB_CROSSED = ("LabHC/bias_in_bios_class_set1", _AMAZON)
HUB_LABELLED = (
    *(f"LabHC/bias_in_bios_class_set{number}" for number in (1, 2, 3)),
    _AMAZON,
    f"{_AMAZON}_sentiment",
    "codeparrot/github-code",
    "fancyzhx/ag_news",
    "Helsinki-NLP/europarl",
)
_STREAMED = ("codeparrot/github-code", "Helsinki-NLP/europarl")


def find_repository(name: str) -> str:
    """Return the repository on the hub of a data set with one of SAEBench's names."""
    return name.split("_class_set")[0].removesuffix("_sentiment")


def is_streamed(name: str) -> bool:
    """Whether a data set of the hub is read without a copy on disk."""
    return name not in HUB_LABELLED or name in _STREAMED
