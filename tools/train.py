"""Train a detector.

    python tools/train.py CONFIG [dotted.path=value ...] [--resume | --overwrite]
    python tools/train.py --show-config [reference | schema]
    python tools/train.py --replay runs/my/bad_batch.pt

The run goes to `output_dir`, runs/<CONFIG's stem> unless the config says otherwise.
"""

import json

from detector.config.file import load_config
from detector.config.help import reference
from detector.config.schema import Config
from detector.utils.cli import ArgumentParser, run


def main() -> int | None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="e.g. train.epochs=24")
    parser.add_argument("--resume", action="store_true", help="continue the run in output_dir where it stopped")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in output_dir and start again")
    parser.add_argument(
        "--show-config", nargs="?", const="reference", choices=["reference", "schema"],
        help="print every setting with its meaning and default (YAML), or the JSON Schema for editors",
    )  # fmt: skip
    parser.add_argument(
        "--replay", metavar="FILE", help="do the step that a training left here again: what is not finite?"
    )
    args = parser.parse_intermixed_args()
    if args.show_config == "schema":
        print(json.dumps(Config.model_json_schema(), indent=2))
        return 0
    if args.show_config:
        print(reference(), end="")
        return 0
    if args.replay:
        from detector.training.replay import replay

        return replay(args.replay)
    if args.config is None:
        parser.error("name a CONFIG, e.g. configs/quickstart.yaml")
    if args.resume and args.overwrite:
        parser.error("--resume continues the run and --overwrite deletes it: choose one")

    from detector.training.trainer import fit  # after the arguments are known to be right: torch takes seconds to load

    return fit(load_config(args.config, args.overrides), resume=args.resume, overwrite=args.overwrite)


if __name__ == "__main__":
    run(main)
