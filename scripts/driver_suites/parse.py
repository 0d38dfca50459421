"""Reads what test runners print into `{test: (pass | fail | skip, what it said)}`.

Must not know which suite it is.
"""

import json
import re
import xml.etree.ElementTree as xml


def junit(file):
    outcome = {}
    if not file.exists():
        return {"the run": ("fail", "ended without a report")}
    for case in xml.parse(file).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        result, said = "pass", ""
        for child in case:
            if child.tag in ("failure", "error"):
                result, said = "fail", child.get("message") or ""
            elif child.tag == "skipped":
                result, said = "skip", child.get("message") or ""
        # Subtests and teardowns are reported under the same name: one failure is a failure.
        if outcome.get(name, ("pass", ""))[0] != "fail":
            outcome[name] = (result, said)
    return outcome


def cargo(text):
    """Lines `test NAME ... ok`; what a failed one printed stands later, under its name."""
    outcome = {}
    for name, result in re.findall(r"^test (\S+) \.\.\. (ok|FAILED|ignored)", text, re.M):
        outcome[name] = ({"ok": "pass", "FAILED": "fail", "ignored": "skip"}[result], "")
    for name, said in re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=^---- |\Z|^failures:)", text, re.M | re.S):
        if name in outcome:
            outcome[name] = (outcome[name][0], said)
    return outcome


def go(text, root):
    """Tests of packages below `root` bear their names: `pgconn:TestConnect`."""
    outcome, output = {}, {}
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "Test" not in event:
            continue
        package = event["Package"].removeprefix(root).strip("/")
        test = f"{package}:{event['Test']}" if package else event["Test"]
        if event["Action"] == "output":
            output[test] = output.get(test, "") + event["Output"]
        elif event["Action"] in ("pass", "fail", "skip"):
            outcome[test] = (event["Action"], output.get(test, "")[-1000:])
    return outcome


def tap(text, prefix=""):
    """`ok 1 - name`, as pg_regress and the programs of tests/drivers print it."""
    outcome = {}
    for result, name, rest in re.findall(r"^(ok|not ok) \d+ +(?:[-+] )?(\S[^#\n]*?)(?: +\d+ ms)? *(#.*)?$", text, re.M):
        skipped = "skip" in rest.lower()
        outcome[prefix + name.strip()] = ("skip" if skipped else "pass" if result == "ok" else "fail", rest)
    return outcome
