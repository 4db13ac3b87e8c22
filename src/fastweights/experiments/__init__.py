"""One file a published experiment: functions that return the configurations of its runs."""

from fastweights.experiments.formal_languages import demo, formal_languages

EXPERIMENTS = {"demo": demo, "formal_languages": formal_languages}
