"""What `experiments.reliability` does to runs.

trial       a run of main.py as a process, and what two runs do not share
kills       SIGKILL at many moments, SIGTERM, SIGINT
damage      files that are cut, emptied, changed or gone
sweeps      a runner that dies
disks       full ones, such that cannot be written, two runs in one place
numbers     rates that explode, labels and pictures that do not fit
hosts       several processes, one of which dies
soak        memory, speed and open files over an hour
"""
