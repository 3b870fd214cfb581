"""The stage `collect`: learning histories of the training tasks, collected, or there already."""

from cccad_data import collect
from cccad_data.audit.verify import refuse_faulty
from cccad_data.collecting.rise import judge

from cccad_train.console import Meter, say
from cccad_train.run import progress
from cccad_train.run.graph import Stage
from cccad_train.run.run import Run


def do_collect(run: Run, stage: Stage) -> None:
    """Collect the learning histories of the training tasks, or find them collected, or given."""
    if run.is_main:
        is_new = not run.folder.has_done(stage.name, stage.inputs)
        if is_new:
            run.folder.keep("histories", None)
        if run.spec.data.path is not None:
            say(f"collect: {run.existing_histories(lazy=True)[1]}")
        elif progress.is_collected(run.dataset):
            say(f"collect: found in {run.dataset}")
            assert run.spec.data.source is not None
            judge(run.dataset, run.family, run.spec.data.source.build())
        else:
            _collect(run)
        _ = run.histories  # refused here if they are not those that the run began with
        if run.spec.data.path is not None and is_new:
            refuse_faulty(run.histories, run.family, str(run.spec.data.path))
        run.folder.finish(stage.name, stage.inputs)
    run.accelerator.wait_for_everyone()


def _collect(run: Run) -> None:
    data, split = run.spec.data, run.spec.split
    assert data.source is not None
    with Meter("collect", 0, "env steps") as meter:
        collect(
            run.family,
            data.source.build(),
            data.executor.build(),
            out=run.dataset,
            split={"seed": split.seed, "held_out_frac": split.held_out_frac},
            max_tasks=split.max_train_tasks,
            seed=data.seed,
            progress=lambda done, total: meter.show(done, total=total),
        )
