"""The machines and versions behind a set of runs, in one line each."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastweights.report.runs import Run

_SHOWN = ("versions", "platform", "device", "device_name", "num_threads", "commit", "dirty")


def environments(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The distinct environments, without times, each with its `num_runs`, most frequent first."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        shown = {key: run.environment[key] for key in _SHOWN if key in run.environment}
        if shown:
            entry = found.setdefault(environment_line(shown), {**shown, "num_runs": 0})
            entry["num_runs"] += 1
    return [
        found[line] for line in sorted(found, key=lambda line: (-found[line]["num_runs"], line))
    ]


def environment_line(environment: Mapping[str, Any]) -> str:
    """Device, platform, threads, versions and commit."""
    device, name = environment.get("device"), environment.get("device_name")
    parts = [f"{device} ({name})" if name and name != device else str(device or name or "")]
    parts.append(str(environment.get("platform") or ""))
    threads = environment.get("num_threads")
    if isinstance(threads, int):
        parts.append("1 thread" if threads == 1 else f"{threads} threads")
    versions = environment.get("versions")
    if isinstance(versions, Mapping):
        parts += [f"{package} {version}" for package, version in versions.items()]
    if environment.get("commit"):
        commit = f"commit {str(environment['commit'])[:12]}"
        parts.append(f"{commit} with local changes" if environment.get("dirty") else commit)
    return ", ".join(part for part in parts if part)
