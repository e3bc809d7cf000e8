"""After the last job: what failed is put back and told; the table is made and shown."""

import atexit

TABLE = rules.summarise_scores.output.csv


def shows_table():
    """Whether the table is among what this run was asked for."""
    return any(TABLE in job.output for job in workflow.dag.jobs)


def tell_nothing_done():
    """A line where all was there before: Snakemake calls no handler then."""
    scheduler = workflow._scheduler
    if scheduler is None or workflow.dryrun or scheduler._run_performed:
        return
    if not len(workflow.dag) and shows_table():
        print(
            f"nothing to do: {Path(TABLE).with_suffix('.md')} is up to date",
            file=sys.stderr,
        )


if workflow.is_main_process and not IS_UNFINISHED:
    atexit.register(tell_nothing_done)


def end_well(folder):
    """All jobs ended well: keep nothing of before, show the table."""
    if IS_UNFINISHED or not workflow.is_main_process:
        return
    LastGood(folder, workflow.persistence).clear()
    SOURCES.save()
    if shows_table():
        has_figures = any(job.rule.name == "draw_figure" for job in workflow.dag.jobs)
        say_last(tell_table(TABLE, f"{folder}/figures/" if has_figures else None))


def end_badly(folder):
    """Some job failed, or someone stopped the run: put back, make what can be made, say why."""
    if IS_UNFINISHED or not workflow.is_main_process:
        return
    dag, scheduler = workflow.dag, workflow._scheduler
    jobs = {str(file): job for job in dag.jobs for file in job.output}
    # Jobs on other machines may write for a while; local ones have ended.
    running = set() if workflow.local_exec else set(list_single(scheduler.running))

    def has_ended_well(name):
        job = jobs.get(name)
        return None if job in running else job is not None and dag.finished(job)

    restored = LastGood(folder, workflow.persistence).put_back(has_ended_well)
    waiting = sum(not dag.finished(job) for job in dag.needrun_jobs())
    failed = set(list_single(scheduler.failed))
    if not failed:
        say_last("stopped: the same command goes on from what is complete")
        return
    say_last(tell_failures(failed, waiting - len(failed), restored))
    if not scheduler._user_kill and shows_table():
        make_unfinished_table(failed)


def make_unfinished_table(failed):
    """The table of all dictionaries that were scored, where some were and some failed."""
    keys = {
        path: [fit.site, fit.method, fit.n_atoms, fit.k, fit.seed]
        for path, fit in zip(METRICS, EXPERIMENT.fits)
    }
    missing = find_failed(workflow.dag, failed, keys)
    if not missing or len(missing) == len(keys):
        return
    if make_table(
        workflow.main_snakefile, LAYERS, missing, [*rules.summarise_scores.output]
    ):
        say_last(f"table of the others, {len(missing)} failed\n{tell_table(TABLE)}")
