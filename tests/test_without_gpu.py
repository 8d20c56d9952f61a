"""Kernels take the path of size gpu on a CPU, with few steps and nothing judged."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Write = Callable[..., Path]
SCRIPT = Path(__file__).with_name("without_gpu.py")
START = """\
from tfcourse.course import chapter
run = chapter.start(1, size=size, device=device, seed=seed)
from tfcourse.training.loop import fit
from tfcourse.recipes.classification import sst2
"""
SEEN = """\
print(run.size, run.device, run.trained)
print(run.pick(smoke=3, laptop=120, gpu=400), run.pick(smoke=32, laptop=64, gpu=128))
print(run.pick(smoke=[1], laptop=[1, 2], gpu=[1, 2, 3]))
print(run.pick(smoke=2, laptop=32, gpu=32))
"""
FITTED = """\
from tfcourse.data.dates import date_pairs
from tfcourse.data.pairs import Batches, translation_batch
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
data = date_pairs(count=200, test=20)
model = Transformer(TransformerConfig(vocab_size=data.tokenizer.vocab_size,
                                      d_model=8, num_heads=2, d_ff=8,
                                      max_seq_len=64, num_encoder_layers=1,
                                      num_decoder_layers=1))
batches = Batches(data.train, data.tokenizer, translation_batch, size=4)
print(len(batches), fit(model, batches, steps=40, lr=1e-3).steps[-1])
"""


def test_a_kernel_takes_the_path_of_size_gpu_in_few_steps(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder = write_chapter(
        "01_a", START, SEEN, FITTED, "print(len(sst2()['train']))"
    ).parent
    tool = [sys.executable, "-m", "tfcourse.cli", "run", "--notebooks", str(folder)]
    options = ["--size", "gpu", "--device", "cpu", "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, str(SCRIPT), *tool, *options], check=True)
    cells = json.loads((tmp_path / "out/01_a.ipynb").read_text())["cells"]
    printed = ["".join(o["text"]) for c in cells for o in c.get("outputs", [])]
    assert "".join(printed).splitlines() == [
        "gpu cpu False",
        "3 128",
        "[1, 2, 3]",
        "32",
        "50 12",
        "1000",
    ]
