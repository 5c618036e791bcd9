"""How every benchmark here measures.

worker      a contender's process, which works when it is told to
contest     starts, stops and times the workers, in turn
busy        how much of the machine other programs used meanwhile
tables      rows, and how far other programs disturbed them
machine     what stands beside every number: machine, versions, command
"""
