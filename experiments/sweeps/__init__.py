"""Sweeps: many runs of main.py that test one claim.

experiment   a claim as data: a base config and named variants of it
runner       runs as processes of this machine
sbatch       runs as an array of SLURM tasks
table        the table and the plot of the results
program      the command line of a sweep
"""
