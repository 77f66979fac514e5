"""Compares reports of the Autobahn cases, each in a folder of its own, with the list of those that need not be OK:
REPORTS EXPECTED COUNT."""

import json
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

# More than these say no more.
MAX_SHOWN = 20


def outcomes(reports):
    """Case -> (outcome, its own report file), in the order of their numbers."""
    found = {}
    for index in reports.glob("*/index.json"):
        for cases in json.loads(index.read_text()).values():
            for case, entry in cases.items():
                behavior, close = entry["behavior"], entry["behaviorClose"]
                # How the connection was closed has a verdict of its own.
                outcome = behavior if close in ("OK", behavior) else f"{behavior}, closing {close}"
                found[case] = outcome, index.parent / entry["reportfile"]
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def expectations(path):
    """Pattern -> outcome."""
    listed = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        pattern, outcome, reason, *_ = *line.split(maxsplit=2), "", ""
        if outcome not in ("NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED") or not reason:
            sys.exit(f"{path}:{number}: expected a case, an outcome that is allowed, and a reason")
        listed[pattern] = outcome
    return listed


def compare(found, listed, count):
    """What is wrong, as (case, text)."""
    if len(found) != count:
        yield None, f"{len(found)} cases were run, not {count}"
    for pattern in listed:
        if not any(fnmatchcase(case, pattern) for case in found):
            yield None, f"{pattern} is in the list, but no such case was run"
    for case, (outcome, _) in found.items():
        wanted = next((listed[pattern] for pattern in listed if fnmatchcase(case, pattern)), "OK")
        if outcome == wanted:
            continue
        if outcome == "OK":
            yield case, f"is OK now: take it out of the list, where it is {wanted}"
        else:
            yield case, f"is {outcome}, expected {wanted}"


def main():
    reports, expected, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    found = outcomes(reports)
    problems = list(compare(found, expectations(expected), count))
    for case, text in problems[:MAX_SHOWN]:
        print(f"{case} {text}" if case else text, file=sys.stderr)
        if case:
            detail = json.loads(found[case][1].read_text())
            for key in ("description", "result", "resultClose", "wasNotCleanReason"):
                if detail[key]:
                    print(f"    {key}: {detail[key]}", file=sys.stderr)
    if len(problems) > MAX_SHOWN:
        print(f"and {len(problems) - MAX_SHOWN} more", file=sys.stderr)
    kinds = Counter(outcome for outcome, _ in found.values())
    counts = ", ".join(f"{number} {outcome.lower()}" for outcome, number in kinds.most_common())
    print(f"conformance: {len(found)} cases: {counts}; {len(problems)} not as expected")
    if problems:
        sys.exit(f"every frame of every case: {reports / '*' / 'index.html'}")


main()
