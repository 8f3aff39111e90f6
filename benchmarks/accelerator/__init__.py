"""Everything that needs an accelerator, in one command of a few minutes.

launch/accelerator_check.sh runs `check.py`. `jobs.py` runs processes within their seconds,
`plan.py` says which; the other modules are the jobs, what they share, and what packs their data.
"""
