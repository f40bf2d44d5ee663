"""fit(): a training from its configuration to its checkpoints and figures, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from detector.config.schema import Config
from detector.training import resume as resuming
from detector.training.deadline import Deadline
from detector.training.directory import RunDirectory
from detector.training.epoch import train_epoch
from detector.training.saver import Saver
from detector.training.setup import prepare
from detector.training.startup_log import introduce
from detector.training.state import Prepared, Progress, Run
from detector.training.validation import conclude, evaluate_epoch
from detector.utils.errors import InputError, RunError
from detector.utils.lock import locked
from detector.utils.signals import StopRequest

# Trains or evaluates an epoch. False: a signal ended it before it changed anything.
Phase = Callable[[Run, StopRequest, Deadline], bool]


def fit(config: Config, *, resume: bool = False, overwrite: bool = False) -> int:
    """Train as `config` says, into `config.output_dir`.

    Returns 0 when the training is done or its time is over, or 128 + the number of the signal that stopped it, after
    saving. Raises InputError, also where another process works in that directory, and RunError; both after saving if
    the training had begun.
    """
    deadline = Deadline(config.train.max_hours)
    directory = RunDirectory(config.run_directory)
    with locked(directory.path):
        last = None
        if resume:
            last = resuming.load_last(directory)
            config = resuming.resumed_config(config, last, directory)
        elif not overwrite:
            directory.check_free()

        prepared = prepare(config, last)
        warnings = resuming.reconcile_best(directory, prepared.training.progress) if last else []
        with closing(_open(directory, prepared, is_new=last is None)) as run:
            _write_first_files(run, is_new=last is None)
            introduce(run, [*run.notes, *warnings])
            for phase in phases_left(run.progress, run.config):
                exit_code = _run_phase(phase, run, deadline)
                if exit_code is not None:
                    return exit_code
            run.saver.finish(run.training.state())
            conclude(run)
    return 0


def phases_left(progress: Progress, config: Config) -> Iterator[Phase]:
    """The next phase, until the training is finished. Each phase moves `progress` on, which decides the next one."""
    settings = config.train
    while not progress.is_finished(config):
        due = progress.epoch % settings.eval_every == 0 or progress.epoch >= settings.epochs
        yield evaluate_epoch if due and progress.epoch > progress.evaluated else train_epoch


def _open(directory: RunDirectory, prepared: Prepared, *, is_new: bool) -> Run:
    """Open the logs; a new run first removes an earlier one."""
    progress = prepared.training.progress
    if is_new:
        directory.remove_run()
    log = directory.open_log(None if is_new else (progress.step, progress.evaluated))
    saver = Saver(directory, log, prepared.config, prepared.train, prepared.val)
    return Run(**vars(prepared), directory=directory, log=log, saver=saver)


def _write_first_files(run: Run, *, is_new: bool) -> None:
    """From now on the directory holds a run. Raises RunError if there is no room for its first checkpoint."""
    if is_new:
        run.saver.save_last(run.training.state())
        if not run.saver.wait():
            raise RunError(f"{run.directory.path}: not even the first checkpoint could be saved; see above")
    run.directory.write_config(run.config)


def _run_phase(phase: Phase, run: Run, deadline: Deadline) -> int | None:
    """Run a phase and save. Returns the exit code if a signal or the time ends the training, else None."""
    progress, saver = run.progress, run.saver
    with StopRequest() as stop:
        try:
            completed = phase(run, stop, deadline)
        except (InputError, RunError) as problem:
            saver.save_best()
            if phase is not evaluate_epoch:  # an evaluation changes nothing, and was saved before
                saver.save_last(run.training.state())
            raise type(problem)(f"{problem} ({_saved(run)} at step {progress.step}; go on with --resume)") from None
        saver.save_best()
        if completed:  # also before an evaluation: should that fail or be stopped, the state is there
            saver.save_last(run.training.state())
        saved = _saved(run) if stop.signum or stop.save else ""
    if stop.save:
        run.log.say(f"{saved} at step {progress.step}, as SIGUSR1 asks")
    if stop.signum:
        run.log.say(f"stopped by signal {stop.signum} at step {progress.step}; {saved}, continue with --resume")
        return 128 + stop.signum
    settings = run.config.train
    if deadline.is_over() and not progress.is_finished(run.config):
        run.log.say(
            f"train.max_hours: {settings.max_hours:g} h are over at step {progress.step}; {_saved(run)}, "
            "continue with --resume (and another train.max_hours, if you like)"
        )
        return 0
    return None


def _saved(run: Run) -> str:
    return "saved" if run.saver.wait() else "not saved"
