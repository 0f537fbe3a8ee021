"""Many runs of one experiment: which points there are, who simulates them, where their results land.

space      what a user writes: axes, zips, samples, conditions, derived values -> points
points     a point as a resolved experiment and its key
store      one file per finished point; the table
executors  worker processes of this machine, or of a dask cluster
agenda     which worker takes which point
crew       keeps the workers busy
run        the sweep: `archsim.sweep`
search     the best points of a space, looked for by a sampler: `archsim.search`
study      its trials: asked for, told, kept
facts      what objectives and constraints may speak of
"""
