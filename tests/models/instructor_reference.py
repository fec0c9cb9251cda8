"""Writes `instructor_reference.json`: what InstructorEmbedding itself gives for the tiny model, by its working pins.

Run once, in an environment of its own, since those pins are old and fit nothing else:

    pip install torch==2.15.0 transformers==4.41.2 huggingface_hub==0.25.2 tokenizers==0.19.1 numpy==2.4.6 Pillow \
        scikit-learn scipy nltk sentencepiece InstructorEmbedding==1.0.1
    pip install --no-deps sentence-transformers==2.2.2
    python -P -m tests.models.instructor_reference
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path

from tests.models.t5_dir import dense, write_instructor

FILE = Path(__file__).with_suffix(".json")
QUERY = "Represent the question for retrieving supporting documents: "
DOCUMENT = "Represent the document for retrieval: "
PAIRS = (
    (QUERY, "How many days of annual leave are there?"),
    (DOCUMENT, "Employees have 25 days of paid leave a year; they are asked for in the portal."),
    (DOCUMENT, "Parking is free on Sundays."),
    ("Represent the sentence: ", "x"),
    (QUERY, "  Two   blanks, and one at the end "),
)
_PACKAGES = ("InstructorEmbedding", "sentence-transformers", "transformers", "tokenizers", "torch")


def main() -> None:
    import torch
    from InstructorEmbedding import INSTRUCTOR

    with tempfile.TemporaryDirectory() as place:
        folder = write_instructor(Path(place) / "instructor-tiny")
        # Version 2.2.2 reads this layer's weights as a pickle alone.
        torch.save({"linear.weight": torch.from_numpy(dense())}, folder / "2_Dense" / "pytorch_model.bin")
        model = INSTRUCTOR(str(folder), device="cpu")
        kinds = [type(module).__name__ for module in model]
        assert kinds == ["INSTRUCTOR_Transformer", "INSTRUCTOR_Pooling", "Dense", "Normalize"], kinds
        rows = model.encode([list(pair) for pair in PAIRS])
    found = {
        "made_with": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "pairs": PAIRS,
        "vectors": [[float(f"{value:.8g}") for value in row] for row in rows.tolist()],
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
