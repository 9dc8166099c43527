"""What runs were made of and where they differ: config, data, code, environment; of one run its facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from eval.report_input import Record, RunRecords
from eval.report_parts.markup import digest, folded, key_values, missing, table, words
from eval.report_parts.running import training_command

_UNSET = "not set"
_OWN_NAMES = ("name", "source", "output", "notes")  # differ between any two runs; last in a table
MAX_FILES = 60  # of differing code that are listed


def config_section(runs: Sequence[RunRecords]) -> str:
    """All keys of one run's config; of several runs the keys that differ, and the others folded."""
    if len(runs) == 1:
        config = runs[0].config
        if not config:
            return missing("There is no config.json; training writes it when it begins.", training_command(runs[0]))
        return folded(f"{len(config)} keys of config.json", key_values("Config, resolved", config))
    configs = [flat({key: value for key, value in run.config.items() if key not in _OWN_NAMES}) for run in runs]
    own = [{key: run.config[key] for key in _OWN_NAMES if key in run.config} for run in runs]
    differing, equal = split(configs)
    body = _compared("Keys of the config that differ", runs, differing)
    if not differing:
        body += '<p class="note">No key differs but names and places.</p>'
    body += _compared("Names and places", runs, split(own)[0])
    return body + folded(f"{len(equal)} equal keys", key_values("Equal in all runs", equal))


def data_section(runs: Sequence[RunRecords]) -> str:
    """Training data and verification sets with their hashes."""
    facts = [_data(run) for run in runs]
    if not any(facts):
        return missing("Neither run.json nor a verification tells hashes of the data.", training_command(runs[0]))
    rows = []
    for key in dict.fromkeys(key for record in facts for key in record):
        values = [record.get(key, _UNSET) for record in facts]
        shown = [_value(key, value) for value in values]
        if len(runs) > 1:
            shown.append("equal" if all(value == values[0] for value in values) else "differs")
        rows.append([key, *shown])
    header = ["what", *(run.label for run in runs), "compared"] if len(runs) > 1 else ["what", "value"]
    return table("Data and hashes (SHA-256; all of it in the cell's title)", header, rows, is_wrapped=True)


def environment_section(runs: Sequence[RunRecords]) -> str:
    """Where runs ran and what code they ran; of several the differences, equal facts folded."""
    if not any(_place(run) or _fingerprint(run) for run in runs):
        return missing("There is no run.json; training writes it when it begins.", training_command(runs[0]))
    if len(runs) == 1:
        return _one_environment(runs[0])
    places = [_place(run) | flat(_fingerprint(run).get("environment", {})) for run in runs]
    differing, equal = split(places)
    body = _compared("Environment that differs", runs, differing)
    if not differing:
        body += '<p class="note">No fact of the environment differs.</p>'
    body += folded(f"{len(equal)} equal facts of the environment", key_values("Equal environment", equal))
    body += _code(runs)
    return body + "".join(_went_on(run, f"{run.label}: changed when the run went on") for run in runs)


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, keys joined by dots; an empty object stays a value."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def split(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Keys whose values differ, with each record's value, and keys that are equal in all, with the value."""
    differing: dict[str, list[Any]] = {}
    equal: dict[str, Any] = {}
    for key in dict.fromkeys(key for record in records for key in record):
        values = [record.get(key, _UNSET) for record in records]
        # 1 and True and 1.0 are one number to Python and three values to a reader
        if all(words(value) == words(values[0]) for value in values):
            equal[key] = values[0]
        else:
            differing[key] = values
    return differing, equal


def _one_environment(run: RunRecords) -> str:
    body = key_values("Where it ran", _place(run))
    for group, facts in _fingerprint(run).items():
        shown = {key: value for key, value in facts.items() if key not in ("files", "verification")}
        if "files" in facts:
            shown["files"] = f"{len(facts['files'])} hashed, listed in run.json"
        if group != "data":
            body += key_values(f"Reproducibility: {group}", flat(shown))
    return body + _went_on(run, "Changed when the run went on")


def _code(runs: Sequence[RunRecords]) -> str:
    """Differences of the code, by file."""
    codes = [_fingerprint(run).get("code", {}) for run in runs]
    heads = [{key: value for key, value in code.items() if key != "files"} for code in codes]
    differing, _ = split(heads)
    files, equal = split([code["files"] if isinstance(code.get("files"), Mapping) else {} for code in codes])
    body = _compared("Code that differs", runs, differing)
    shown = dict(list(files.items())[:MAX_FILES])
    more = f", the first {MAX_FILES}" if len(files) > MAX_FILES else ""
    body += _compared(f"{len(files)} of {len(files) + len(equal)} code files differ{more} (hashes)", runs, shown)
    if not differing and not files and any(codes):
        body += f'<p class="note">The code is the same, {len(equal)} files.</p>'
    return body


def _compared(caption: str, runs: Sequence[RunRecords], differing: Mapping[str, Sequence[Any]]) -> str:
    rows = [[key, *(_value(key, value) for value in values)] for key, values in differing.items()]
    return table(caption, ["name", *(run.label for run in runs)], rows, is_wrapped=True)


def _value(key: str, value: Any) -> str:
    return digest(value) if key.endswith("sha256") and value != _UNSET and isinstance(value, str) else words(value)


def _data(run: RunRecords) -> Record:
    data = _fingerprint(run).get("data", {})
    facts = flat({key: value for key, value in data.items() if key != "verification"}, "training data ")
    sets = data.get("verification")
    hashes = dict(sets) if isinstance(sets, Mapping) else {}
    hashes |= {str(r.get("dataset")): r["data_sha256"] for r in run.verification if r.get("data_sha256")}
    for name, target in (run.saved.get("targets") or {}).items():
        hashes[name] = target.get("data_sha256", hashes.get(name))
    return facts | {f"verification set {name}, sha256": value for name, value in hashes.items()}


def _place(run: RunRecords) -> Record:
    return {key: value for key, value in run.origin.items() if key not in ("fingerprint", "changes", "command")}


def _fingerprint(run: RunRecords) -> dict[str, Record]:
    groups = run.origin.get("fingerprint")
    items: Iterable[tuple[str, Any]] = groups.items() if isinstance(groups, Mapping) else ()
    return {group: dict(facts) for group, facts in items if isinstance(facts, Mapping)}


def _went_on(run: RunRecords, title: str) -> str:
    changed = [
        f"# {entry.get('command')}\n" + "\n".join(str(line) for line in entry.get("changed", ()))
        for entry in run.origin.get("changes") or ()
    ]
    return f"<h3>{escape(title)}</h3><pre>{escape(chr(10).join(changed))}</pre>" if changed else ""
