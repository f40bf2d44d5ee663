"""Examine a dataset before training: is it sound, how imbalanced, can anchors reach its objects, and what to use.

    python tools/doctor.py DATASET [--write-config OUT.yaml] [--html OUT.html] [--fix OUT.json [--split train]]
    python tools/doctor.py DATASET --config CONFIG [dotted.path=value ...]

DATASET: a dataset descriptor (YAML), or a COCO annotation file (JSON), whose images may be absent. With --config,
classes and reach are told at the image size and anchors of CONFIG instead of the advice's. Nothing is overwritten.
Exit code 0 whatever is found; 2 where an argument is wrong, or a config would be written that cannot train.
"""

from pathlib import Path

from detector.config.file import load_config
from detector.utils.cli import ArgumentParser, run
from detector.utils.text import command, counted

SHOWN = 20  # changes of --fix that are printed


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="dataset descriptor (YAML) or annotation file (JSON)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="of --config, e.g. data.image_size=512")
    parser.add_argument("--config", help="look through this config's image size and anchors")
    parser.add_argument("--write-config", type=Path, metavar="OUT.yaml", help="write the advice as a config to train")
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="write a page with plots and pictures")
    parser.add_argument("--fix", type=Path, metavar="OUT.json", help="write a repaired copy of the annotations")
    parser.add_argument("--split", help="split to repair (default: train, or the only one)")
    args = parser.parse_intermixed_args()
    if args.overrides and not args.config:
        parser.error(f"{args.overrides[0]!r} overrides a setting of --config, and there is none")
    if args.split and not args.fix:
        parser.error("--split says what --fix repairs; give --fix OUT.json too")
    config = load_config(args.config, args.overrides) if args.config else None

    from detector.doctor.examination import check_new, examine_dataset, write_advice, write_fixed, write_html
    from detector.utils.console import console

    for path in filter(None, (args.write_config, args.html, args.fix)):
        check_new(path)
    examination = examine_dataset(args.dataset, config)
    console.print("\n".join(examination.lines()))
    if args.html:
        write_html(examination, args.html)
        console.print(f"{args.html}: the page")
    if args.fix:
        changes = write_fixed(examination.descriptor, args.split, args.fix)
        rest = [f"... and {len(changes) - SHOWN} more, all in {args.fix}.changes.txt"] if len(changes) > SHOWN else []
        done = f"{args.fix}: the repaired copy, {counted(len(changes), 'change')}"
        console.print("\n".join([done, *changes[:SHOWN], *rest]))
    if args.write_config:
        write_advice(examination, args.write_config)
        console.print(f"{args.write_config}: the config; {command('tools/train.py', args.write_config)}")


if __name__ == "__main__":
    run(main)
