"""Speed and nothing else: faster equals of the papers' modules, for inference on a CPU.

`fuse.py` has the table that says which module has which. No paper in `models/` knows of this room.
"""
