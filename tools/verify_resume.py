"""Prove that a training of CONFIG which is killed and resumed ends as if it never was, bit for bit.

    python tools/verify_resume.py CONFIG [dotted.path=value ...] [--steps 20] [--kills 3] [--seed 0]

Trains so many steps on a few images of its data, twice: in peace, and killed (SIGKILL) at random moments and resumed.
Exit code 0 if both are the same, 1 if not. Works in a temporary directory.
"""

import tempfile
from pathlib import Path

from detector.config.file import load_config
from detector.utils.cli import ArgumentParser, run


def main() -> int:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="e.g. data.workers=4")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps, about (default: 20)")
    parser.add_argument("--kills", type=int, default=3, help="default: 3")
    parser.add_argument("--seed", type=int, default=0, help="of the images and of the moments (default: 0)")
    args = parser.parse_intermixed_args()
    if args.steps < 1 or args.kills < 1:
        parser.error("--steps and --kills are 1 or more")
    config = load_config(args.config, args.overrides)

    from detector.training.resume_proof.proof import verify  # torch takes seconds to load

    with tempfile.TemporaryDirectory(prefix="verify_resume-") as directory:
        return 0 if verify(config, Path(directory), steps=args.steps, kills=args.kills, seed=args.seed) else 1


if __name__ == "__main__":
    run(main)
