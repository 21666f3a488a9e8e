"""What a benchmark needs of the data sets, which nobody has who has not fetched them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training import config

# Below the folder of data sets.
WIDER = Path("wider")
PROTOCOL = WIDER / "val_protocol"
YUNET_GRAPH = Path("reference", "yunet_n_dynamic.onnx")


def datasets(benchmark: str, given: Path | None, needed: Sequence[Path]) -> Path | None:
    """The folder of data sets, `given` or as training finds it, that holds all that is `needed`.

    None where nobody named a folder and there is none, or not all of it: then a line says which benchmark is left out,
    and why. Raises SystemExit where a folder that was named is none, or `given` lacks something.
    """
    try:
        folder = given or config.datasets()
    except config.BadConfig as error:
        raise SystemExit(str(error)) from None
    if folder is None:
        print(f"{benchmark}: left out, there are no data sets: set FACET_DATASETS, or give --data")
        return None
    missing = ", ".join(str(of) for of in needed if not (folder / of).exists())
    if not missing:
        return folder
    if given:
        raise SystemExit(f"--data {given}: no {missing}")
    print(f"{benchmark}: left out, the data sets in {folder} hold no {missing}")
    return None
