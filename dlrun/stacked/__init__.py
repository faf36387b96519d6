"""Several runs trained as one: models of one shape whose weights are stacked, a forward and backward pass for them all.

`plan` says which runs can be trained together, without torch; `train.train_stack` trains them.
"""
