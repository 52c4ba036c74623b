"""The page about runbooks tells the truth."""

import json
import re
from pathlib import Path

from runbooks.adapters.yaml_library import SCHEMA, load_runbook
from runbooks.model import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text()


def test_the_example_is_a_valid_runbook(tmp_path):
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    path = tmp_path / "example.yaml"
    path.write_text(example.group(1))
    assert load_runbook(path).title.startswith("Scale")


def test_every_key_and_outcome_is_explained():
    schema = json.loads(SCHEMA.read_text())
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
    assert not [word for word in sorted(keys - {"name"}) + list(Outcome) if not re.search(rf"\b{word}\b", PAGE)]
