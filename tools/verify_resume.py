"""Check that a training of CONFIG ends the same, bit for bit, if it is killed at random moments and resumed.

    python tools/verify_resume.py CONFIG [dotted.path=value ...] [--steps 20] [--kills 3] [--seed 0]

Trains twice on a few images of the config's data, in a temporary directory: once without interruption, once killed
(SIGKILL) and resumed. Exit code 0 if both runs are the same, 1 if not.
"""

import tempfile
from pathlib import Path

from detector.config.file import load_config
from detector.utils.cli import ArgumentParser, run


def main() -> int:
    parser = ArgumentParser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="path=value", help="e.g. data.workers=4")
    parser.add_argument("--steps", type=int, default=20, help="about so many optimizer steps (default: 20)")
    parser.add_argument("--kills", type=int, default=3, help="how often the second training is killed (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the images and the moments (default: 0)")
    args = parser.parse_intermixed_args()
    if args.steps < 1 or args.kills < 1:
        parser.error("--steps and --kills are 1 or more")
    config = load_config(args.config, args.overrides)

    from detector.training.resume_proof.proof import verify  # torch takes seconds to load

    with tempfile.TemporaryDirectory(prefix="verify_resume-") as directory:
        return 0 if verify(config, Path(directory), steps=args.steps, kills=args.kills, seed=args.seed) else 1


if __name__ == "__main__":
    run(main)
