"""Many files: a folder of videos to a folder of streams, on the cores, the GPUs or the cluster there are.

`driver.run` decides what to do next and keeps the books; `units.work` does it, in a worker process
(workers.py) or a Ray task (cluster.py); storage.py knows where files are, pieces.py cuts long ones.
This package imports tokcodec, never the reverse.
"""
