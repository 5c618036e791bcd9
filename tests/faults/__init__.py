"""Faults that a run must survive with the same bits.

By hand, before a release: python -m tests.faults.reliability --help

trial     a run of main.py as a process, and what differs between two runs
kills     SIGKILL at many moments, SIGTERM, SIGINT
sweeps    a sweep whose runner is killed
damage    files of a checkpoint that are cut, emptied, changed or gone
disks     full disks
hosts     several processes, one of which is killed
soak      memory, speed and open files over an hour
"""
