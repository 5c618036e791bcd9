"""How every benchmark here measures.

worker      a contender's process, which works when it is told to
contest     starts, stops and times the workers, in turn
busy        how much of the machine other programs used meanwhile, and how far
            that disturbed the rows
machine     what stands beside every number: machine, versions, command
"""
