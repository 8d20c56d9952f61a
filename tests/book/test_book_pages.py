"""What the book's own pages say is so: works, verdicts, floors, masks, examples."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from built_book import ROOT
from pybtex.database import parse_file
from test_floors import FLOORS
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from tfcourse.course.ledger import load_ledger
from tfcourse.course.show import VERDICTS
from tfcourse.model.config import TransformerConfig
from tfcourse.model.masks import causal, dense
from tfcourse.model.transformer import Transformer

BOOK = ROOT / "book"
LEDGER = load_ledger()
WORKS = parse_file(str(BOOK / "references.bib")).entries


def read(page: str) -> str:
    """Return the source of a page."""
    return (BOOK / page).read_text(encoding="utf-8")


def example(page: str, number: int = 0) -> str:
    """Return a Python example of a page."""
    return re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)[number]


# ---- works and verdicts -------------------------------------------------------------


@pytest.mark.parametrize("key", LEDGER.sources)
def test_every_source_of_the_ledger_is_in_the_bibliography(key: str) -> None:
    work = WORKS[key]
    (surname, *_), year = work.persons["author"][0].last_names, work.fields["year"]
    assert LEDGER.sources[key].startswith(f"{surname} {year}")


def test_works_are_sorted_and_can_be_found() -> None:
    assert list(WORKS) == sorted(WORKS)
    for key, work in WORKS.items():
        assert {"eprint", "url"} & set(work.fields), f"{key} has no address"
        assert re.match(r"[a-z]+\d{4}[a-z]+$", key), key


def test_verdicts_written_by_hand_are_the_ledgers() -> None:
    words = {word: verdict for verdict, (_, word) in VERDICTS.items()}
    box = re.compile(r"> \*\*\S (\w+)\*\* · claim \[(C\d+)\].*?\n>\n> “(.*?)”", re.S)
    found = []
    for page in sorted(BOOK.glob("*.md")):
        for word, claim, quote in box.findall(page.read_text(encoding="utf-8")):
            found.append(claim)
            row = LEDGER.row(claim)
            assert words[word] == row.verdict, claim
            assert quote.replace("\n> ", " ") == row.claim, claim
    assert found == ["C6"]


# ---- the house ----------------------------------------------------------------------


def test_the_floors_shown_are_the_floors_tested() -> None:
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", read("contributing.md"), re.MULTILINE)
    shown = {int(floor): re.findall(r"`([\w.]+)`", names) for floor, names in rows}
    assert shown == {floor: names.split() for floor, names in enumerate(FLOORS)}
    assert list(shown) == sorted(shown, reverse=True)


def test_the_house_shown_is_there() -> None:
    picture = re.search(r"```text\n(.*?)```", read("contributing.md"), re.DOTALL)
    folder = Path()
    for line in picture[1].splitlines():
        for name in re.split(r"\s{2,}", line.strip())[0].split(", "):
            base = folder if line.startswith(" ") else Path()
            assert (ROOT / base / name).exists(), name
            if name.endswith("/") and not line.startswith(" "):
                folder = Path(name)


# ---- the examples -------------------------------------------------------------------


def test_example_of_a_mask_runs() -> None:
    code = example("notation.md").rstrip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join([*code[:-1], f"result = {code[-1]}"]), names)
    result = names["result"]
    assert isinstance(result, Tensor)
    assert result.shape == (1, 1, 4, 4)
    assert result.sum() == 1 + 2 + 3 + 3  # the last token is padding


def test_example_of_probes_runs() -> None:
    sizes = {"vocab_size": 9, "d_model": 8, "num_heads": 2, "d_ff": 16}
    config = TransformerConfig(**sizes, max_seq_len=8, num_decoder_layers=1)
    tokens = torch.randint(9, (2, 6))
    exec(example("how_to_use.md", 1), {"model": Transformer(config), "tokens": tokens})


# ---- what a boolean mask means ------------------------------------------------------

MASK = torch.tensor([True, False, True])  # the same for each of three queries


def by_sdpa() -> Tensor:
    query, value = torch.randn(1, 1, 3, 4), torch.eye(3)[None, None]
    mixed = scaled_dot_product_attention(query, query, value, MASK.expand(3, 3))
    return mixed[0, 0]


def by_flex() -> Tensor:
    query, value = torch.randn(1, 1, 3, 4), torch.eye(3, 4)[None, None]
    block = create_block_mask(lambda b, h, q, k: MASK[k], 1, 1, 3, 3, device="cpu")
    return flex_attention(query, query, value, block_mask=block)[0, 0, :, :3]


def by_layer(**masks: Tensor) -> Tensor:
    x = torch.randn(1, 3, 8)
    return nn.MultiheadAttention(8, 1, batch_first=True)(x, x, x, **masks)[1][0]


def by_transformer(**masks: Tensor) -> Tensor:
    """Return how much each source token changes the outputs."""
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
    source, target = torch.randn(1, 3, 8, requires_grad=True), torch.randn(1, 3, 8)
    out = (model(source, target, **masks) * torch.randn(3, 8)).sum()
    return torch.autograd.grad(out, source)[0].abs().sum(-1)


MEASURED: dict[str, Callable[[], Tensor]] = {
    "this book": lambda: dense(
        lambda batch, head, query, key: MASK[key],
        batch=1,
        query=torch.arange(3),
        key=torch.arange(3),
    ).float()[0, 0],
    "`torch.nn.functional.scaled_dot_product_attention`: `attn_mask`": by_sdpa,
    "`torch.nn.attention.flex_attention`: `mask_mod`": by_flex,
    "`torch.nn.MultiheadAttention`: `attn_mask`": lambda: by_layer(
        attn_mask=MASK.expand(3, 3)
    ),
    "`torch.nn.MultiheadAttention`: `attn_mask`, `key_padding_mask`": lambda: by_layer(
        key_padding_mask=MASK[None]
    ),
    "`torch.nn.Transformer` and its layers: `src_mask`": lambda: by_transformer(
        src_mask=MASK.expand(3, 3), memory_mask=MASK.expand(3, 3)
    ),
    "`torch.nn.Transformer` and its layers": lambda: by_transformer(
        src_key_padding_mask=MASK[None], memory_key_padding_mask=MASK[None]
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("library", MEASURED)
def test_the_table_of_mask_conventions_is_right(library: str) -> None:
    (row,) = re.findall(rf"^\| {re.escape(library)}.*$", read("notation.md"), re.M)
    read_from = MEASURED[library]() > 0
    means_attend = torch.equal(read_from, MASK.expand_as(read_from))
    means_ignored = torch.equal(read_from, (~MASK).expand_as(read_from))
    assert means_attend != means_ignored
    assert row.endswith("| may attend |" if means_attend else "| is **ignored** |")


def test_the_traps_of_torch_are_as_told() -> None:
    query, nothing = torch.randn(1, 1, 3, 4), torch.zeros(3, 3, dtype=torch.bool)
    hidden = scaled_dot_product_attention(query, query, query, nothing)
    assert torch.equal(hidden, torch.zeros_like(hidden))
    assert by_layer(key_padding_mask=torch.ones(1, 3, dtype=torch.bool)).isnan().all()

    value = torch.eye(3)[None, None]
    two = scaled_dot_product_attention(query[:, :, :2], query, value, is_causal=True)
    top_left = dense(causal, batch=1, query=torch.arange(2), key=torch.arange(3))
    assert torch.equal(two > 0, top_left)

    written = nn.Transformer.generate_square_subsequent_mask(3)
    assert written.dtype == torch.float32
    assert torch.equal(written.isneginf(), torch.ones(3, 3).triu(1).bool())
