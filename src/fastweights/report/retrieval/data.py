"""report.json of a retrieval study: every number of the page and of the figures."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastweights.report.data import run_data
from fastweights.report.environments import environments
from fastweights.report.retrieval.agreement import (
    ABSOLUTE,
    RELATIVE,
    Share,
    agrees,
    orders,
    overall,
    shares,
    single_runs,
)
from fastweights.report.retrieval.floor import (
    TOLERANCE,
    below_floor,
    checked_runs,
    floor,
    published_below_floor,
)
from fastweights.report.retrieval.memory import memory_name
from fastweights.report.retrieval.page import title, variants
from fastweights.report.retrieval.published import CUT_SHORT, PublishedLoss, published_losses
from fastweights.report.retrieval.step_figure import curve_size
from fastweights.report.retrieval.study import Point, RetrievalStudy, evaluations, final_loss
from fastweights.report.retrieval.tables import configuration, not_run
from fastweights.report.runs import Run


def report_data(study: RetrievalStudy, figures: Sequence[str], command: str) -> dict[str, Any]:
    """Plain dictionaries and lists."""
    return {
        "title": title(study),
        "command": command,
        "variants": variants(study),
        "environments": environments(study.runs),
        "points": [_point(point) for point in study.points],
        "agreement": {
            "relative": RELATIVE,
            "absolute": ABSOLUTE,
            "overall": _share(overall(study)),
            "single_runs": asdict(single) if (single := single_runs(study)) else None,
            "models": [
                {"setting": setting, "model": model, **_share(share)}
                for (setting, model), share in shares(study).items()
            ],
        },
        "orders": [asdict(order) for order in orders(study)],
        "floor": {
            "tolerance": TOLERANCE,
            "num_checked": len(checked_runs(study)),
            "below": [asdict(each) for each in below_floor(study)],
            "published_below": [asdict(each) for each in published_below_floor()],
        },
        "configurations": [
            {"setting": setting, "model": model, **configuration(study, setting, model)}
            for setting in study.settings
            for model in study.models(setting)
        ],
        "curves": _curves(study),
        "published": [_published(loss) for loss in published_losses().values()],
        "published_not_run": [
            {"setting": setting, "model": model} for setting, model in not_run(study)
        ],
        "runs": [_run(run) for run in study.runs],
        "figures": list(figures),
    }


def _point(point: Point) -> dict[str, Any]:
    features, published, loss = point.num_features, point.published, point.loss
    agreeing = None
    if loss is not None and published is not None:
        agreeing = agrees(loss, published.loss)
    return {
        "setting": point.setting,
        "num_keys": point.num_keys,
        "model": point.model,
        "name": memory_name(point.model).plain,
        "num_runs": len(point.runs),
        "num_done": len(point.done),
        "num_diverged": len(point.diverged),
        "loss": loss,
        "std": point.spread.std if point.spread else None,
        "losses": point.losses,
        "steps": [run.result.steps for run in point.done if run.result],
        "cpu_s": point.cpu_s,
        "num_features": features,
        "floor": floor(features, point.num_keys) if features and point.setting == 1 else None,
        "published": _published(published) if published else None,
        "agrees": agreeing,
    }


def _published(loss: PublishedLoss) -> dict[str, Any]:
    """With `diverged`, since JSON has no NaN."""
    return {
        **loss._asdict(),
        "diverged": math.isnan(loss.loss),
        "cut_short": loss.key == CUT_SHORT,
    }


def _share(share: Share) -> dict[str, Any]:
    return {**asdict(share), "share": share.share}


def _curves(study: RetrievalStudy) -> list[dict[str, Any]]:
    """Evaluations of the runs that the figures show."""
    found = []
    for setting in study.settings:
        size = curve_size(study, setting)
        for point in study.of_setting(setting):
            for run in point.runs if point.num_keys == size else ():
                steps, losses = evaluations(run)
                found.append(
                    {
                        "setting": setting,
                        "num_keys": size,
                        "model": point.model,
                        "seed": run.seed,
                        "steps": steps,
                        "losses": losses,
                    }
                )
    return found


def _run(run: Run) -> dict[str, Any]:
    _, losses = evaluations(run)
    return run_data(run, loss=final_loss(run), lowest_loss=min(losses, default=None))
