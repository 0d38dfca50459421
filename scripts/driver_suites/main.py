"""Command line of the driver suites: fetches them, runs each against each target, prints the table.

Must not know any suite.
"""

import argparse
import concurrent.futures
import sys
import time
from pathlib import Path

import report
import suites
from target import MODES, Target

WORK = Path("target/driver-suites").resolve()


def arguments():
    parser = argparse.ArgumentParser(prog="driver-suites.sh", description=__doc__.splitlines()[0])
    for mode in MODES:
        parser.add_argument(f"--{mode}", dest="modes", action="append_const", const=mode, help=f"only {mode}, and others given")
    parser.add_argument("--only", help="suites, with commas between")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    parser.add_argument("--port-base", type=int, default=15000)
    parser.add_argument("--jobs", type=int, default=3, help="suites at once")
    args = parser.parse_args()
    args.modes = args.modes or list(MODES)
    args.suites = [s for s in suites.ALL if not args.only or s.name in args.only.split(",")]
    unknown = set((args.only or "").split(",")) - {s.name for s in suites.ALL} - {""}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    return args


def say(text):
    print(text, file=sys.stderr, flush=True)


def fetch(suite):
    """None, or why it cannot run here."""
    try:
        suite.fetch()
        return None
    except Exception as error:  # noqa: BLE001: whatever it is, the others go on
        return f"{type(error).__name__}: {error}"


def run(suite, target):
    began = time.monotonic()
    try:
        outcome = suite.run(target)
    except Exception as error:  # noqa: BLE001
        outcome = {f"{suite.name}: the suite itself": ("fail", f"{type(error).__name__}: {error}")}
    passed = sum(1 for result, _ in outcome.values() if result == "pass")
    failed = sum(1 for result, _ in outcome.values() if result == "fail")
    say(f"{suite.name:12} {target.mode:12} {passed:5} passed {failed:4} failed  {time.monotonic() - began:5.0f} s")
    return outcome


def main():
    args = arguments()
    if args.list:
        for suite in suites.ALL:
            print(f"{suite.name:12} {suite.title}")
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        lacks = dict(zip(args.suites, pool.map(fetch, args.suites)))
    for suite, why in lacks.items():
        if why:
            say(f"{suite.name}: cannot be fetched: {why}")
    targets = [Target(mode, WORK / mode, args.port_base + 20 * i) for i, mode in enumerate(MODES) if mode in args.modes]
    results = {}
    try:
        for target in targets:
            target.start()
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            jobs = {
                (suite, target.mode): pool.submit(run, suite, target)
                for suite in args.suites if not lacks[suite]
                for target in targets
            }
            results = {key: job.result() for key, job in jobs.items()}
        # What differs is asked once more with nothing beside it: a loaded machine is no difference.
        for suite in args.suites:
            direct = results.get((suite, "direct"))
            for target in targets:
                if direct and target.mode != "direct" and not lacks[suite]:
                    suite.again(target, report.differences(direct, results[suite, target.mode]), results[suite, target.mode])
    finally:
        for target in targets:
            target.stop()
    return report.write(WORK, args, lacks, results)


if __name__ == "__main__":
    sys.exit(main())
