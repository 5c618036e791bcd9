"""Many runs for one claim.

sweep          experiments as data, and what runs them, here
slurm          or as jobs of a cluster
sweep_results  the table and the picture of what came out
rate_search    the learning rate that takes fewest epochs
"""
