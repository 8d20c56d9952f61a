"""What tests of outputs share: displays are collected instead of drawn."""

from dataclasses import dataclass, field
from typing import Any

import IPython.display
import pytest


@dataclass
class Displayed:
    """The outputs of a cell: mime bundles, and the metadata of each."""

    bundles: list[dict[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, bundle: dict[str, Any], *, raw: bool, metadata: Any = None):
        assert raw
        self.bundles.append(bundle)
        self.metadata.append(metadata or {})

    @property
    def html(self) -> str:
        return "\n".join(bundle.get("text/html", "") for bundle in self.bundles)

    @property
    def claims(self) -> list[dict[str, Any]]:
        found = (m.get("tfcourse", {}).get("claims", []) for m in self.metadata)
        return [record for records in found for record in records]


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> Displayed:
    outputs = Displayed()
    monkeypatch.setattr(IPython.display, "display", outputs)
    return outputs
