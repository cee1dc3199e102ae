"""The notebook that a user begins with, as it is shipped."""

from __future__ import annotations

import json

from tests.unit import as_ansible

SHIPPED = as_ansible.ROLES / "jupyter/files/notebooks/start_here.ipynb"


def test_it_is_shipped_without_outputs_and_every_cell_is_python() -> None:
    book = json.loads(SHIPPED.read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    for cell in cells:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        compile("".join(cell["source"]), SHIPPED.name, "exec")


def test_it_names_no_address_and_no_key() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    for word in ("http:", "https:", "://mlflow", "aws_", "password", "token"):
        assert word not in text
