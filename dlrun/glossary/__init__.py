"""The glossary whose claims are measured: an entry is one YAML of conf/glossary and, where needed, one small function.

`entry` reads, `claims` judges, `measure` runs, `record` keeps and `page` shows. Only `measure` and `measures/` load
torch.
"""
