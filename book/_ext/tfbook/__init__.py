"""What the book needs beyond Jupyter Book: verdicts, alt text, repairs, the drill."""

from sphinx.application import Sphinx

from . import anchors, drill, figures, layout, live, social, theme, verdicts

MODULES = (verdicts, layout, figures, anchors, theme, drill, live, social)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect every part; called by Sphinx."""
    for module in MODULES:
        module.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
