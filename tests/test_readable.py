"""The model core stays readable in one sitting, and says what shapes it takes."""

import ast
from pathlib import Path

import pytest

import tfcourse.model

FILES = sorted(Path(tfcourse.model.__file__).parent.glob("*.py"))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def functions(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def code_lines(source: str) -> int:
    """Count lines that are neither blank nor a comment nor a docstring."""
    documented = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            doc = node.body[0]
            documented |= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return sum(
        number not in documented and line.strip() != "" and line.strip()[0] != "#"
        for number, line in enumerate(source.splitlines(), 1)
    )


def test_lines_of_code_are_counted_without_what_explains_them() -> None:
    source = (
        '"""Doc."""\n\n# why\nx = 1  # what\n\n\ndef f():\n    """Do\n\n    it."""\n'
    )
    assert code_lines(source + "    return x\n") == 3


def test_the_core_has_nine_hundred_lines_of_code_at_most() -> None:
    assert len(FILES) > 5
    assert sum(code_lines(path.read_text(encoding="utf-8")) for path in FILES) <= 900


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_function_fits_a_screen(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > 40
    }
    assert long == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_public_function_names_the_shapes_of_its_tensors(path: Path) -> None:
    """A rule's four indices may have any shapes that broadcast."""
    bare = []
    for node in functions(path):
        arguments = [*node.args.args, *node.args.kwonlyargs]
        names = [argument.arg for argument in arguments if argument.arg != "self"]
        if node.name.startswith("_") or names == ["batch", "head", "query", "key"]:
            continue
        kinds = [part.annotation for part in arguments if part.arg != "self"]
        for name, kind in zip([*names, "return"], [*kinds, node.returns], strict=True):
            if kind is None or shapeless(kind):
                bare.append(f"{node.name}({name})")
    assert bare == []


def shapeless(kind: ast.expr) -> bool:
    """Say whether an annotation holds a Tensor outside of Float[Tensor, "shape"]."""
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) in (
        *("Float", "Int", "Bool"),
        "Callable",
    ):
        return False
    if isinstance(kind, ast.Name):
        return kind.id == "Tensor"
    return any(shapeless(part) for part in ast.iter_child_nodes(kind))


def test_a_tensor_without_a_shape_is_found_wherever_it_stands() -> None:
    found = [
        shapeless(ast.parse(kind, mode="eval").body)
        for kind in (
            "Tensor",
            "Tensor | None",
            "tuple[Tensor, int]",
            "dict[str, Tensor]",
        )
    ]
    assert found == [True] * 4
    assert not shapeless(ast.parse('Int[Tensor, "x"] | None', mode="eval").body)
