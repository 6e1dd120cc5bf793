"""``python -m inference.training STEP --config FILE``: prepare, train, evaluate, teach, robustness,
export, one command a step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference.training.run_config import RunConfig, read_run_config

_STEPS = ("prepare", "train", "evaluate", "teach", "robustness", "export")


def main() -> None:
    """Parse the command line and run one step."""
    parser = argparse.ArgumentParser(prog="python -m inference.training", description=__doc__)
    parser.add_argument("step", choices=_STEPS)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the run")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/rsna"), help="labelled radiographs"
    )
    parser.add_argument("--out", type=Path, help="working folder (default: runs/<config name>)")
    parser.add_argument(
        "--gate",
        type=Path,
        default=Path("runs/gate-128"),
        help="robustness, export: folder of the evaluated gate (default: %(default)s)",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        help="export: folder of the MONAI bundle to write (default: a release, config/models/"
        "<name>-<version>, with its model card in docs/)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="train: what to start from instead of ImageNet: a bundle's safetensors, or the"
        " checkpoint.pt of another run",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="train: data loading processes (a GPU needs 8 to 16)"
    )
    arguments = parser.parse_args()
    config = read_run_config(arguments.config)
    out = arguments.out or Path("runs") / arguments.config.stem
    _run(arguments, config, out)


def _run(arguments: argparse.Namespace, config: RunConfig, out: Path) -> None:
    prepared = out / f"radiographs-{config.side}.npz"
    if arguments.step == "prepare":
        from inference.training.prepare import prepare

        print(prepare(config, arguments.data, out))
    elif arguments.step == "train":
        from inference.training.imagenet import imagenet_weights
        from inference.training.train import train

        weights = arguments.weights or imagenet_weights(config.network.backbone)
        print(train(config, prepared, out, workers=arguments.workers, weights=weights))
    elif arguments.step == "evaluate":
        from inference.training.report import evaluate_checkpoint

        print(json.dumps(evaluate_checkpoint(config, prepared, out), indent=2))
    elif arguments.step == "teach":
        from inference.training.distillation import teach

        print(teach(config, prepared, out))
    elif arguments.step == "robustness":
        _robustness(arguments, config, out)
    else:
        from inference.training.export import export

        print(export(config, prepared, out, gate=arguments.gate, folder=arguments.bundle))


def _robustness(arguments: argparse.Namespace, config: RunConfig, out: Path) -> None:
    from inference.gate import Gate
    from inference.training.report import averaged_network, load_checkpoint
    from inference.training.robustness import robustness

    prepared = out / f"radiographs-{config.side}.npz"
    network = averaged_network(config, load_checkpoint(out / "checkpoint.pt"))
    gate = Gate((arguments.gate / "gate.onnx").read_bytes())
    figures = robustness(config, arguments.data, prepared, out, network=network, gate=gate)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
