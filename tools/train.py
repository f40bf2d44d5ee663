"""Train a detector.

    python tools/train.py CONFIG [dotted.path=value ...] [--resume | --overwrite]
    python tools/train.py runs/my --resume [dotted.path=value ...]
    python tools/train.py --show-config [reference | schema]
    python tools/train.py --replay runs/my/bad_batch.pt

The run goes to `output_dir`, runs/<CONFIG's stem> unless the config says otherwise. A run directory is a CONFIG, too:
its own.
"""

import json

from detector.config.file import load_config
from detector.config.help import json_schema, reference
from detector.utils.cli import ArgumentParser, run


def main() -> int | None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="experiment file (YAML), or a run directory")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="such as train.epochs=24")
    parser.add_argument("--resume", action="store_true", help="continue the run in output_dir where it stopped")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in output_dir and start again")
    parser.add_argument(
        "--show-config", nargs="?", const="reference", choices=["reference", "schema"],
        help="print every setting with its meaning and default (YAML), or the JSON Schema for editors",
    )  # fmt: skip
    parser.add_argument("--replay", metavar="FILE", help="repeat the bad step in FILE and say where it begins")
    args = parser.parse_intermixed_args()
    if args.config and (args.show_config or args.replay):
        parser.error(f"{args.config}: --show-config and --replay take no CONFIG")
    if args.show_config:
        from detector.inference.config_check import choices

        as_json = args.show_config == "schema"
        print(json.dumps(json_schema(choices()), indent=2) + "\n" if as_json else reference(choices()), end="")
        return 0
    if args.replay:
        from detector.training.replay import replay

        replay(args.replay)
        return 0
    if args.config is None:
        parser.error("name a CONFIG, such as configs/quickstart.yaml")
    if args.resume and args.overwrite:
        parser.error("--resume continues the run and --overwrite deletes it: choose one")
    config = load_config(args.config, args.overrides)

    from detector.training.trainer import fit  # once the arguments are right: torch takes seconds to load

    return fit(config, resume=args.resume, overwrite=args.overwrite)


if __name__ == "__main__":
    run(main)
