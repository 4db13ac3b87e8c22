"""The machines and versions behind a set of runs, in one line each."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastweights.report.names import escape_markdown
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


def machine_lines(runs: Iterable[Run]) -> list[str]:
    """A line of Markdown a machine with its versions, most frequent first; one that ran several
    commits names them, with their numbers of runs."""
    machines: dict[str, list[dict[str, Any]]] = {}
    for each in environments(runs):
        machine = {key: value for key, value in each.items() if key not in ("commit", "dirty")}
        machines.setdefault(environment_line(machine), []).append(each)
    totals = {line: sum(each["num_runs"] for each in machines[line]) for line in machines}
    lines = []
    for line in sorted(machines, key=lambda line: (-totals[line], line)):
        found = machines[line]
        runs_of_it = "1 run" if totals[line] == 1 else f"{totals[line]} runs"
        number = f" ({runs_of_it})" if len(machines) > 1 or len(found) > 1 else ""
        shown = environment_line(found[0])
        if len(found) > 1:
            commits = (f"{_commit(each) or 'unknown'} ({each['num_runs']})" for each in found)
            shown = f"{line}; commits {', '.join(commits)}"
        lines.append(f"- Machine{number}: {escape_markdown(shown)}.")
    return lines


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
    commit = _commit(environment)
    parts.append(f"commit {commit}" if commit else "")
    return ", ".join(part for part in parts if part)


def _commit(environment: Mapping[str, Any]) -> str:
    """Its first digits; empty where it is not known."""
    commit = str(environment.get("commit") or "")[:12]
    return f"{commit} with local changes" if commit and environment.get("dirty") else commit
