"""Runs of a sweep as an array of SLURM tasks.

Nodes must see the workdirs, this checkout and its Python under the same paths
as this machine.
"""

import pathlib
import shlex
import sys
from collections.abc import Sequence

from alexnet_jax import errors
from experiments.sweeps import runner

# sbatch keeps a copy of the script, so the flags stand in it: they must not
# change while tasks wait in the queue.
_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={output}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH {options}
# SLURM sends SIGTERM 120 s before the time limit. main.py saves its step
# and exits with 143, and the task goes back into the queue.

cd {root} || exit 1
case $SLURM_ARRAY_TASK_ID in
{tasks}
esac
mkdir -p "$workdir"
# From SLURM 22.05 on, srun does not take this number from sbatch.
cpus=${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}}
srun $cpus --output="$workdir/{log}" --open-mode=append \\
  {python} main.py "${{flags[@]}}"
code=$?
if [ $code = 0 ]; then
  printf '%s\\n' "${{flags[@]}}" > "$workdir/{finished}"
elif [ $code = 143 ]; then
  # SLURM_JOB_ID can be the whole array's.
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
"""


def script(
  name: str, runs: Sequence[runner.Run], folder: pathlib.Path, options: str
) -> str:
  """Returns a batch script with one array task for each run.

  Args:
    name: Name of the job.
    runs: Runs to train.
    folder: Absolute path of the folder for SLURM's own logs.
    options: Options of sbatch that the cluster needs, as on its command line.

  Raises:
    UserError: If `options` is not a list of options.
  """
  if not options.startswith('-') or '\n' in options:
    raise errors.UserError(
      f'--sbatch={options} is no list of options; write it as '
      "--sbatch='--time=24:00:00 --gpus-per-node=1'."
    )
  tasks = [
    f'{number}) workdir={shlex.quote(str(run.workdir))}'
    f' flags=({shlex.join(run.flags)}) ;;'
    for number, run in enumerate(runs)
  ]
  return _SCRIPT.format(
    name=name,
    last=len(runs) - 1,
    output=shlex.quote(f'{folder}/slurm-%A_%a.log'),
    options=options,
    root=shlex.quote(str(runner.ROOT)),
    tasks='\n'.join(tasks),
    python=shlex.quote(sys.executable),
    log=runner.LOG,
    finished=runner.FINISHED,
  )
