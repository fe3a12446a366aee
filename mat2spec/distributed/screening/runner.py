"""Shards of a screening on the cluster: all stages in one process per core, or graphs on cores and networks on GPUs."""

from collections.abc import Callable

import pyarrow as pa
import ray
from ray.data import Dataset, TaskPoolStrategy

from mat2spec.config import InferenceConfig
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardLimits, ShardReport, StageTimer, commit
from mat2spec.distributed.screening.without_ray import MIN_MEMORY
from mat2spec.distributed.shards.attempts import Job, get_step
from mat2spec.distributed.shards.runner import Pool, ShardRunner, Workers
from mat2spec.distributed.shards.worker import RETRIES, SHARD, ShardWorker, Watchdog, report_table
from mat2spec.errors import StorageError
from mat2spec.predict.featurized import FeaturizedShard, featurize, read_rows
from mat2spec.predict.pipeline import ScreeningStep

_NAME, _FAILED = "name", "failed"
"""Columns of a block between the two stages, beside the arrays: the shard, and the report if it has no graphs."""


def screening_runner(step: ScreeningStep, inference: InferenceConfig) -> ShardRunner:
    """Return the runner that suits the cluster and the settings."""
    workers = Workers.from_cluster(inference.predictors)
    separate = workers.num_gpus > 0 if inference.separate_featurization is None else inference.separate_featurization
    if not separate:
        return ShardRunner(step, workers)
    # Half of a core, so that a worker and a task that builds graphs fit on a single one.
    return SeparateFeaturization(step, workers._replace(num_cpus=workers.num_cpus / 2))


def screening_limits(inference: InferenceConfig) -> ShardLimits:
    """Return the limits of the processes; memory: as configured, else node memory / cores, unlimited on GPU nodes."""
    limits = ShardLimits.from_config(inference, "inference")
    # CUDA reserves far more address space than there is memory.
    if limits.memory is not None or ray.cluster_resources().get("GPU", 0):
        return limits
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [resources.get("memory", 0) / resources["CPU"] for resources in nodes if resources.get("CPU")]
    return limits._replace(memory=max(MIN_MEMORY, int(min(shares, default=0))))


class SeparateFeaturization(ShardRunner):
    """Builds graphs in tasks on any core, so that the workers, which hold the GPUs, only predict and commit."""

    def process(self, shards: Dataset, pool: Pool) -> Dataset:
        """Return the dataset of the reports of a dataset of shards."""
        graphs = shards.map_batches(
            GraphBuilder(self.job), compute=TaskPoolStrategy(), batch_format="pyarrow", num_cpus=1
        )
        return self.on_workers(graphs, PredictWorker, pool)


class GraphBuilder:
    """What a task of the first stage does: read the shards of a block and build their graphs."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = [self._build(Shard.from_json(text)) for text in block[SHARD].to_pylist()]
        return pa.concat_tables(rows, promote_options="default")

    def _build(self, shard: Shard) -> pa.Table:
        """One row: the graphs of a shard as flat arrays, or the report that says why there are none."""
        if not self._job.may_try(f"graphs of {shard.name}", 1 + RETRIES):
            return _without_graphs(ShardReport(shard.name, lost=True))
        step: ScreeningStep = get_step(self._job)
        timer = StageTimer()
        with Watchdog(step.limits.seconds).watching():
            try:
                rows = read_rows(shard, timer)
                featurized = featurize(rows, step.checkpoint.card.config.graph, timer)
            except StorageError as error:
                return _without_graphs(ShardReport(shard.name, failed=str(error)))
            except MemoryError:
                return _without_graphs(ShardReport(shard.name, lost=True))
            timer.stop()
            return featurized.to_table(timer).append_column(_NAME, pa.array([shard.name]))


def _without_graphs(report: ShardReport) -> pa.Table:
    return pa.table({_NAME: [report.name], _FAILED: [report.to_json()]})


class PredictWorker(ShardWorker):
    """What a worker of the second stage does: predict the spectra of graphs and commit them."""

    def __call__(self, block: pa.Table) -> pa.Table:
        names = block[_NAME].to_pylist()
        return report_table(
            self.try_each([(name, self._predicting(name, block.slice(i, 1))) for i, name in enumerate(names)])
        )

    def _predicting(self, name: str, row: pa.Table) -> Callable[[], ShardReport]:
        return lambda: self._predict_and_commit(name, row)

    def _predict_and_commit(self, name: str, row: pa.Table) -> ShardReport:
        if _FAILED in row.column_names and (failed := row[_FAILED][0].as_py()):
            return ShardReport.from_json(failed)
        timer = StageTimer()
        featurized = FeaturizedShard.from_table(row, timer)
        tables = self.processor.predict(featurized, timer)
        return commit(self.step.run, name, tables, timer)
