"""Courses and papers reproduced: what a source prints or claims beside what its experiment gives here, over seeds.

A reproduction is one YAML of conf/reproduce and, where it measures what is not a training run, one small function.
Claims, verdicts, pages and the look of pictures are the glossary's (dlrun/glossary). Runs go through the sweep engine.
`entry` reads, `jobs` trains, `measure` measures and judges, `record` keeps, `page` shows.
"""
