#!/usr/bin/python3
"""What `fedstill compare --format json` says, from the runs' own files again: compare.py JSON [TARGET ...]

Standard library only, and apart from the program: sums by fsum, permutations by itertools.
Prints what is wrong; exits with 1 then.
"""
import itertools
import json
import math
import os
import statistics
import sys

wrong = []


def near(what, got, wanted):
    if wanted is None or got is None:
        if wanted is not None or got is not None:
            wrong.append(f"{what}: {got} is not {wanted}")
    elif abs(got - wanted) > 1e-9 * max(1, abs(wanted)):
        wrong.append(f"{what}: {got} is not {wanted}")


def spread(what, got, values):
    near(what + " mean", got["mean"], statistics.fmean(values) if values else None)
    near(what + " sd", got["sd"], statistics.stdev(values) if len(values) > 1 else None)


def read(run, stage):
    with open(os.path.join(run["output"], "summary.json")) as f:
        summary = json.load(f)
    s = summary["stages"][stage]
    rounds = {}
    with open(os.path.join(run["output"], "events.jsonl")) as f:
        for line in f:
            e = json.loads(line)
            if e["stage"] == stage and e["event"] == "round":
                rounds[e["round"]] = e
    s["seed"] = summary["seed"]
    s["test"] = summary["data"]["test_digest"]
    s["curve"] = [(n, math.fsum(rounds[k]["bytes_up"] + rounds[k]["bytes_down"] for k in range(1, n + 1)),
                   math.fsum(rounds[k]["seconds"] for k in range(1, n + 1)), rounds[n]["test_accuracy"],
                   rounds[n]["validation_accuracy"]) for n in sorted(rounds)]
    return s


def at(curve, axis, x):
    """The accuracy of the last measured round that was over by x; None before the first and beyond the last."""
    measured = [p for p in curve if p[3] is not None]
    if not measured or x > measured[-1][axis] * (1 + 1e-9):
        return None
    before = [p[3] for p in measured if p[axis] <= x * (1 + 1e-9)]
    return before[-1] if before else None


def check_row(row):
    runs = [read(r, row["stage"]) for r in row["runs"]]
    if [r["seed"] for r in row["runs"]] != sorted(r["seed"] for r in runs):
        wrong.append("seeds are not in order")
    for key in ("accuracy", "loss", "macro_f1", "top5_accuracy", "seconds", "bytes_up", "bytes_down"):
        if key in runs[0]:
            spread(f"row {row['row']} {key}", row[key], [r[key] for r in runs])
    best, last = [], []
    for r in runs:
        validated = any(p[4] is not None for p in r["curve"])
        measured = [p for p in r["curve"] if p[3] is not None]
        best.append(max(measured, key=lambda p: (p[4] if validated else p[3], -p[0]))[3])
        last.append(r["curve"][-1][3])
    spread(f"row {row['row']} best", row["best_accuracy"], best)
    spread(f"row {row['row']} last", row["last_accuracy"], last)
    for t in row["targets"]:
        reached = [[p for p in r["curve"] if p[3] is not None and p[3] >= t["accuracy"]] for r in runs]
        got = [p[0] for p in reached if p]
        if t["reached"] != len(got) or t["of"] != len(runs):
            wrong.append(f"row {row['row']}: {t['accuracy']} was reached by {len(got)} of {len(runs)}")
        for axis, name in enumerate(("rounds", "bytes", "seconds")):
            spread(f"row {row['row']} {name} to {t['accuracy']}", t[name], [p[axis] for p in got])
    for axis, name in enumerate(("rounds", "bytes", "seconds")):
        for x, mean, sd in row["curves"][name]:
            values = [at(r["curve"], axis, x) for r in runs]
            if None in values:
                wrong.append(f"row {row['row']}: {name} {x} is not there in all runs")
                continue
            spread(f"row {row['row']} at {name} {x}", {"mean": mean, "sd": sd}, values)
    return {r["seed"]: (r["accuracy"], r["test"]) for r in runs}


def check_difference(d, rows):
    a, b = rows[d["row"]], rows[d["against"]]
    diff = [a[s][0] - b[s][0] for s in sorted(a) if s in b and a[s][1] == b[s][1]]
    if d["pairs"] != len(diff):
        wrong.append(f"{d['pairs']} pairs, not {len(diff)}")
    spread("difference", d, diff)
    if len(diff) < 2:
        if any(d[k] is not None for k in ("low", "high", "p_t", "p_signs")):
            wrong.append("one pair says something")
        return
    ways = [abs(math.fsum(x * s for x, s in zip(diff, signs))) for signs in itertools.product((1, -1), repeat=len(diff))]
    near("p of signs", d["p_signs"], sum(w >= abs(math.fsum(diff)) - 1e-12 for w in ways) / len(ways))
    if len(diff) == 3 and max(diff) - min(diff) > 1e-9:  # two degrees of freedom: P(|T| > t) = 1 - t / sqrt(2 + t^2)
        error = statistics.stdev(diff) / math.sqrt(3)
        t = abs(statistics.fmean(diff)) / error
        near("p of t", d["p_t"], 1 - t / math.sqrt(2 + t * t))
        near("interval", d["high"] - d["low"], 2 * 4.302652729749464 * error)


def main():
    with open(sys.argv[1]) as f:
        j = json.load(f)
    rows = {r["row"]: check_row(r) for r in j["rows"]}
    for d in j["differences"]:
        check_difference(d, rows)
    for line in wrong:
        print(line)
    print(f"{len(j['rows'])} rows, {sum(len(r['runs']) for r in j['rows'])} runs, {len(j['differences'])} differences")
    sys.exit(bool(wrong))


main()
