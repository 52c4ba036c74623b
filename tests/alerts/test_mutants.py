"""The tests of the rules can fail: each rule is spoilt in small ways, and its tests must notice."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FLIPPED = {"==": "!=", "!=": "==", ">=": "<", "<=": ">", ">": "<", "<": ">"}


def mutants(rule):
    """Yield what was done and the spoilt rule: operator, threshold, `for`, severity. First the sound one."""
    yield "sound", rule
    bare = re.search(r"(?<![=!<>~])(==|!=|>=|<=|>|<)(?![=~])\s*([\d.]+)", rule["expr"])
    if bare:
        start, end = bare.span(1)
        yield "operator", rule | {"expr": rule["expr"][:start] + FLIPPED[bare[1]] + rule["expr"][end:]}
        start, end = bare.span(2)
        yield "threshold", rule | {"expr": rule["expr"][:start] + str(float(bare[2]) * 2 + 1) + rule["expr"][end:]}
    yield "for", rule | {"for": f"{int(rule.get('for', '0s')[:-1]) + 1}s"}
    yield "label", rule | {"labels": rule["labels"] | {"severity": "none"}}


@pytest.mark.long
def test_at_least_nine_of_ten_spoilt_rules_are_noticed(tmp_path):
    survivors, total = [], 0
    for path in sorted((ROOT / "alerts/rules").glob("*.yml")):
        rules = yaml.safe_load(path.read_text())
        suite = yaml.safe_load((ROOT / "alerts/tests" / path.name).read_text())
        for group in rules["groups"]:
            for place, rule in enumerate(group["rules"]):
                tests = [one for one in suite["tests"] if one["name"].startswith(f"{rule.get('alert')}: ")]
                for what, spoilt in mutants(rule) if "alert" in rule else ():
                    changed = [*group["rules"][:place], spoilt, *group["rules"][place + 1 :]]
                    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group | {"rules": changed}]}))
                    case = suite | {"rule_files": ["rules.yml"], "tests": tests}
                    (tmp_path / "tests.yml").write_text(yaml.safe_dump(case))
                    argv = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
                    done = subprocess.run(argv, capture_output=True, check=False)
                    if what == "sound":
                        assert done.returncode == 0, f"{rule['alert']} fails unspoilt: {done.stderr.decode()}"
                        continue
                    total += 1
                    if done.returncode == 0:
                        survivors.append(f"{rule['alert']}: {what}")
    ratio = 1 - len(survivors) / total
    print(f"killed {ratio:.1%} of {total}; survivors: {survivors}")  # noqa: T201 - the ratio is the result
    assert ratio >= 0.9, survivors
