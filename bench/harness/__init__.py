"""What measures: load, CPU accounting, server life cycle, statistics, tools, progress."""
