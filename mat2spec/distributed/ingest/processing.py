"""Processing of the shards of an ingestion or a substitution: a few without Ray, more on Ray."""

from collections.abc import Generator, Sequence
from contextlib import closing

from mat2spec.data.shards.isolation import checked, isolate
from mat2spec.data.shards.shard import Shard
from mat2spec.data.shards.step import ShardReport, ShardStep


def process_shards(step: ShardStep, shards: Sequence[Shard], without_ray: int) -> Generator[ShardReport]:
    """Process every shard; yield the report of each. To be closed, as by `contextlib.closing`.

    Args:
        step: What is done with each.
        shards: The shards.
        without_ray: Up to so many are processed one after the other, in less time than Ray takes to start (12 s).

    Raises:
        StorageError: If the input cannot be read or the results not be written.
        UnfinishedError: If more rows kill their process than the limits allow.
    """
    if len(shards) > without_ray:
        yield from _process_on_ray(step, shards)
    else:  # in subprocesses from the start, because a file that kills its process must not end the job
        yield from checked((isolate(step, shard) for shard in shards), step.limits)


def _process_on_ray(step: ShardStep, shards: Sequence[Shard]) -> Generator[ShardReport]:
    from mat2spec.distributed.session import ray_session  # Ray takes seconds to import

    # isort: split
    from mat2spec.distributed.shards.runner import ShardRunner, Workers

    with ray_session(), closing(ShardRunner(step, Workers.on_cpus()).run(shards)) as reports:
        yield from reports
