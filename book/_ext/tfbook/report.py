"""Warnings that name the place; `-W` turns them into a failed build."""

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def warn(message: str, docname: str, node: nodes.Node, subtype: str) -> None:
    """Log what is wrong with a node of a page, with the nearest line that is known."""
    place: nodes.Node | None = node
    while place is not None and place.line is None:
        place = place.parent
    line = place.line if place is not None else None
    logger.warning(message, location=(docname, line), type="tfbook", subtype=subtype)
