"""Faults that a run must survive with the same bits.

By hand, before a release: python -m tests.faults.reliability --help

trial     a run of main.py as a process, and what differs between two runs
kills     SIGKILL at many moments, SIGTERM, SIGINT
sweeps    a sweep whose runner is killed
damage    files of a checkpoint that are cut, emptied, changed or gone
disks     full disks
preloaded reads that end in EIO, and a clock that is years off
hosts     several processes, one of which dies, raises or is warned; a lease
soak      memory, speed and open files over an hour
mutants   faults of the code itself, each of which a case must find
"""
