"""The verdicts of a retrieval report: agreement, order and floor, as Markdown."""

import math

from fastweights.report.retrieval.agreement import (
    ABSOLUTE,
    RELATIVE,
    comparisons,
    orders,
    overall,
    single_runs,
)
from fastweights.report.retrieval.floor import (
    CHUNK,
    MOST_ASKED,
    TOLERANCE,
    below_floor,
    checked_runs,
    published_below_floor,
)
from fastweights.report.retrieval.memory import memory_name
from fastweights.report.retrieval.published import CUT_SHORT
from fastweights.report.retrieval.study import RetrievalStudy
from fastweights.report.retrieval.tables import disagreement_table, loss_text, share_table


def agreement_parts(study: RetrievalStudy) -> list[str]:
    """How many points agree, by memory and in all, and which do not."""
    cut = next((c for c in comparisons(study) if c.published.key == CUT_SHORT), None)
    total = overall(study)
    rule = (
        f"A point agrees if our mean loss is within {100 * RELATIVE:g} % of the published one or "
        f"within {ABSOLUTE:g}, or if both diverged. The last line leaves out FAVOR+, which draws "
        "new features at every evaluation and whose normaliser underflows, and the tanh baseline; "
        "the clamped delta rule counts there with DPFP-1."
    )
    head = "No point can be compared."
    if total.share is not None:
        head = (
            f"**{total.num_agreeing} of {total.num_compared} compared points agree "
            f"({100 * total.share:.1f} %)**, FAVOR+ and tanh left out. {total.num_published} such "
            "points are published."
        )
    parts = [head, rule, share_table(study), *_single_runs_parts(study)]
    table = disagreement_table(study)
    parts += ["The points that do not agree:", table] if table else []
    if cut:
        verdict = "agrees" if cut.agrees else "does not agree"
        parts.append(
            f"The published log of {memory_name(CUT_SHORT[2]).markdown} at S = {CUT_SHORT[1]} in "
            f"setting {CUT_SHORT[0]} was cut after {cut.published.steps} steps; the point is "
            f"counted, and {verdict}."
        )
    return parts


def _single_runs_parts(study: RetrievalStudy) -> list[str]:
    """How often single runs agree: the published losses are of one run each."""
    found = single_runs(study)
    if found is None:
        return []
    return [
        f"By the same rule, of single runs {found.with_published} of {found.num_runs} "
        f"({100 * found.with_published / found.num_runs:.1f} %) agree with the published one, and "
        f"of pairs of our own, which differ in the seed alone, {found.with_each_other} of "
        f"{found.num_pairs} ({100 * found.with_each_other / found.num_pairs:.1f} %) with each "
        "other: as close as single runs come."
    ]


def order_text(study: RetrievalStudy) -> str:
    """At how many sizes the memories are in the published order, and at which they are not."""
    found = orders(study)
    if not found:
        return "No size has two memories that can be compared."
    different = [order for order in found if order.reversed_pairs]
    tied = sum(order.tied_once for order in found)
    head = (
        f"At {len(found) - len(different)} of {len(found)} sizes the memories are in the published "
        f"order. Losses count as equal where both are below {ABSOLUTE:g} or within "
        f"{100 * RELATIVE:g} % of the larger; equals on either side are no difference (pairs that "
        f"are equal on one side only: {tied})."
    )
    diverged = sum(math.isnan(each.published.loss) for each in comparisons(study))
    if diverged:
        points = "point" if diverged == 1 else "points"
        head += f" Left out: {diverged} {points} that diverged in the published runs."
    lines = [
        f"- Setting {order.setting}, S = {order.num_keys}: "
        + "; ".join(
            f"{memory_name(lower).markdown} is published below "
            f"{memory_name(higher).markdown}, here above"
            for lower, higher in order.reversed_pairs
        )
        + "."
        for order in different
    ]
    return "\n".join([head, "", *lines] if lines else [head])


def floor_text(study: RetrievalStudy) -> str:
    """Which losses lie below the analytic floor, which cannot be where every key is asked for."""
    checked, found = checked_runs(study), below_floor(study)
    violations = [each for each in found if each.is_violation]
    published = published_below_floor()
    lines = [
        f"Runs with fewer features than keys: {len(checked)}. More than {100 * TOLERANCE:g} % "
        f"below ½ (1 – d/S): {len(found)}, and {len(published)} of the published ones. The "
        f"published evaluation asks for the first {MOST_ASKED} keys only, and its mean is one over "
        f"chunks of {CHUNK}, of which a shorter last one counts as much; a memory can be better at "
        "keys that count more. Below what d features leave of that mean, which violates the bound: "
        f"{len(violations)}, and {sum(each.is_violation for each in published)} of the published "
        "ones."
    ]
    if found:
        lines.append("")
    lines += [
        f"- {memory_name(each.model).markdown}, S = {each.num_keys}, seed {each.seed}: "
        f"{loss_text(each.loss)}, floor {loss_text(each.floor)}"
        f"{' (violates the bound)' if each.is_violation else ''}."
        for each in found
    ]
    return "\n".join(lines)
