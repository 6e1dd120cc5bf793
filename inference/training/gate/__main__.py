"""``python -m inference.training.gate prepare|train|unseen|evaluate --config FILE``: one command a
step.

``unseen`` is optional: it trains a second network without two body parts, whose refusal
``evaluate`` then reports. ``evaluate`` also exports."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from inference.training.gate.config import read_gate_config
from inference.training.gate.export import evaluate, train_without
from inference.training.gate.prepare import PICTURES, load_pictures, prepare
from inference.training.gate.train import train


def main() -> None:
    """Parse the command line and run one step."""
    parser = argparse.ArgumentParser(
        prog="python -m inference.training.gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("prepare", "train", "unseen", "evaluate"))
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the run")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with rsna and not-hand"
    )
    parser.add_argument("--out", type=Path, help="working folder (default: runs/<config name>)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = read_gate_config(arguments.config)
    out = arguments.out or Path("runs") / arguments.config.stem
    if arguments.step == "prepare":
        print(prepare(config, arguments.data, out))
        return
    pictures = load_pictures(out / PICTURES)
    if arguments.step == "train":
        train(config, pictures, out)
    elif arguments.step == "unseen":
        train_without(config, pictures, out)
    else:
        print(json.dumps(evaluate(config, pictures, arguments.data, out), indent=2))


if __name__ == "__main__":
    main()
