"""report.md of a study of language models, from its runs, its figures and the command that remakes
it."""

from collections.abc import Sequence

from fastweights.report.cells import Study
from fastweights.report.names import language_name
from fastweights.report.page import counted, ending, how, whole
from fastweights.report.text.positions import position_curves, positions_table
from fastweights.report.text.published import carried_table, published_parts
from fastweights.report.text.tables import bits_table, experts_table, readings

_EXPERTS = (
    "Of the last evaluation of the finished runs. Entropy: the mean over layers and seeds, 1 for "
    "an even load. Largest load: of one expert, as a multiple of an even load. Dead: chosen by no "
    "token."
)
_CARRIED = (
    "Bits per byte of the test text, in segments that know nothing of each other and with the "
    "state carried from one to the next, in training and in evaluation; differences are of the "
    "same seed each."
)
_PUBLISHED = (
    "Published numbers are of single runs, on another text and at another size; the order of the "
    "models is what can be compared. Undecided: closer than the standard deviation of their "
    "difference over the seeds, or of one seed alone."
)
BITS, LOAD, TOGETHER = "bits_per_byte.png", "expert_load.png", "expert_pairs.png"
POSITIONS = "loss_by_position.png"
_CAPTIONS = {
    BITS: "Bits per byte of (the beginning of) the validation text during training: seeds thin, "
    "their mean bold.",
    POSITIONS: "Bits per byte by position in the windows, each point a mean from the point before "
    "on: seeds thin, their mean bold, around it the standard error over the windows. The training "
    "context is shaded.",
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
    parts = [f"# {title(study)}", how(study), "## Bits per byte", _note(study)]
    for text in study.languages:
        if len(study.languages) > 1:
            parts.append(f"### {language_name(text).markdown}")
        parts.append(bits_table(study, text))
    parts += _pictures(figures, BITS)
    carried = carried_table(study)
    if carried:
        parts += ["## Carried state", _CARRIED, carried]
    parts += _published(study)
    parts += _by_position(study, figures)
    experts = experts_table(study)
    if experts:
        parts += ["## Experts", _EXPERTS, experts, *_pictures(figures, LOAD, TOGETHER)]
    return whole([*parts, *ending(study, command, "text")])


def _note(study: Study) -> str:
    note = (
        "Mean ± sample standard deviation over the finished seeds (one seed has no deviation). "
        "Differences are of the same seed each. CPU time is that of training, all threads, from "
        "the quickest to the slowest seed."
    )
    ways = readings(study)
    return f"{note} The texts were read in one way: {ways[0]} tokens." if len(ways) == 1 else note


def _published(study: Study) -> list[str]:
    parts = []
    for text in study.languages:
        found = published_parts(study, text)
        if found and len(study.languages) > 1:
            parts.append(f"### {language_name(text).markdown}")
        parts += found
    return ["## Beside what is published", _PUBLISHED, *parts] if parts else []


def _by_position(study: Study, figures: Sequence[str]) -> list[str]:
    parts = []
    for text in study.languages:
        curves = position_curves(study, text)
        if curves:
            if len(study.languages) > 1:
                parts.append(f"### {language_name(text).markdown}")
            parts.append(positions_table(curves))
    note = (
        "Loss at the positions of windows of the test text that go on beyond the training context, "
        "each from an empty state: at its end, at the windows' end, and the change; below 0, more "
        "context still helps."
    )
    return ["## Loss by position", note, *parts, *_pictures(figures, POSITIONS)] if parts else []


def _pictures(figures: Sequence[str], *names: str) -> list[str]:
    return [
        part
        for name in names
        if name in figures
        for part in (f"![{name.removesuffix('.png').replace('_', ' ')}]({name})", _CAPTIONS[name])
    ]
