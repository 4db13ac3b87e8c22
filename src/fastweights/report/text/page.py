"""report.md of a study of language models, from its runs, its figures and the command that remakes
it."""

from collections.abc import Sequence

from fastweights.report.cells import Study
from fastweights.report.names import language_name
from fastweights.report.page import counted, ending, how, whole
from fastweights.report.text.tables import bits_table, experts_table

BITS, LOAD, TOGETHER = "bits_per_byte.png", "expert_load.png", "expert_pairs.png"
_CAPTIONS = {
    BITS: "Bits per byte of (the beginning of) the validation text during training: seeds thin, "
    "their mean bold.",
    LOAD: "Load of the experts of a layer in the last evaluation, the busiest first, as a multiple "
    "of an even load (dotted); one line for each layer and seed.",
    TOGETHER: "How often two experts are chosen by the same token, as a multiple of what "
    "independent choices with the same loads would give: last layer, first seed, the busiest "
    "experts first.",
}


def title(study: Study) -> str:
    """What was compared, in numbers."""
    return f"Language models: {counted(study, 'texts')}"


def page(study: Study, figures: Sequence[str], command: str) -> str:
    """The whole page."""
    parts = [f"# {title(study)}", how(study), "## Bits per byte", _note()]
    for text in study.languages:
        if len(study.languages) > 1:
            parts.append(f"### {language_name(text).markdown}")
        parts.append(bits_table(study, text))
    parts += _pictures(figures, BITS)
    experts = experts_table(study)
    if experts:
        parts += ["## Experts", experts, *_pictures(figures, LOAD, TOGETHER)]
    return whole([*parts, *ending(study, command, "text")])


def _note() -> str:
    return (
        "Mean ± sample standard deviation over the finished seeds (one seed has no deviation). "
        "Differences are of the same seed each. CPU time is that of training, all threads, from "
        "the quickest to the slowest seed."
    )


def _pictures(figures: Sequence[str], *names: str) -> list[str]:
    return [
        part
        for name in names
        if name in figures
        for part in (f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", _CAPTIONS[name])
    ]
