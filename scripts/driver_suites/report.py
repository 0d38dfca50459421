"""The table of results, and every difference with its explanation.

Must not know how suites run.
"""

import fnmatch
from pathlib import Path

EXPLAINED = Path(__file__).with_name("explained.txt")


def differences(direct, other):
    """Tests that pass directly and not so."""
    return sorted(test for test, (result, _) in direct.items() if result == "pass" and other.get(test, ("missing", ""))[0] != "pass")


def explanations():
    """(mode, pattern, why): lines `mode suite/pattern: why`."""
    found = []
    for line in EXPLAINED.read_text().splitlines():
        if line and not line.startswith("#"):
            where, why = line.split(": ", 1)
            mode, pattern = where.split(" ", 1)
            found.append((mode, pattern, why))
    return found


def explain(known, mode, suite, test):
    for wanted, pattern, why in known:
        if wanted in (mode, "any") and fnmatch.fnmatchcase(f"{suite}/{test}", pattern):
            return why
    return None


def count(outcome):
    if outcome is None:
        return "-"
    ran = [result for result, _ in outcome.values() if result != "skip"]
    return f"{ran.count('pass')} of {len(ran)}"


def write(work, args, lacks, results):
    """Prints the table; 1 if something differs that nobody has explained."""
    known = explanations()
    lines = [f"| suite | {' | '.join(args.modes)} | differs |", "|---" * (len(args.modes) + 2) + "|"]
    details, unexplained = [], 0
    for suite in args.suites:
        if lacks[suite]:
            lines.append(f"| {suite.title} |{' - |' * len(args.modes)} cannot be fetched here |")
            continue
        direct = results.get((suite, "direct"))
        notes = []
        for mode in args.modes:
            other = results[suite, mode]
            if mode == "direct" or direct is None:
                continue
            tests = differences(direct, other)
            if tests:
                notes.append(f"{len(tests)} in {mode} mode")
            for test in tests:
                why = explain(known, mode, suite.name, test)
                unexplained += why is None
                said = other.get(test, ("", "did not run"))[1].strip().splitlines()
                details.append(f"- {mode} {suite.name}/{test}: {why or 'NOT EXPLAINED: ' + ' '.join(said)[:300]}")
        cells = " | ".join(count(results[suite, mode]) for mode in args.modes)
        lines.append(f"| {suite.title} | {cells} | {', '.join(notes) or 'nothing'} |")
    table = "\n".join(lines)
    text = table + "\n\n" + ("\n".join(details) or "No test tells them apart.") + "\n"
    (work / "report.md").write_text(text)
    print(text)
    if unexplained:
        print(f"{unexplained} differences without an explanation")
    return 1 if unexplained else 0
