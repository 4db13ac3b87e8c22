"""One file a published experiment: the configurations of its runs."""

from fastweights.experiments.experiment import Experiment
from fastweights.experiments.formal_languages import DEMO, FORMAL_LANGUAGES
from fastweights.experiments.language_models import LANGUAGE_MODELS
from fastweights.experiments.recall import RECALL
from fastweights.experiments.retrieval import RETRIEVAL
from fastweights.experiments.sparse_feed_forward import SPARSE_FEED_FORWARD
from fastweights.experiments.sparse_language_models import SPARSE_LANGUAGE_MODELS
from fastweights.experiments.wikitext103 import WIKITEXT103

EXPERIMENTS: dict[str, Experiment] = {
    "demo": DEMO,
    "formal_languages": FORMAL_LANGUAGES,
    "retrieval": RETRIEVAL,
    "recall": RECALL,
    "sparse_feed_forward": SPARSE_FEED_FORWARD,
    "language_models": LANGUAGE_MODELS,
    "wikitext103": WIKITEXT103,
    "sparse_language_models": SPARSE_LANGUAGE_MODELS,
}
