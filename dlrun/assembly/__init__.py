"""All parts of one run put together, ready to train or to evaluate; nothing is written yet."""

from dlrun.assembly.assembling import assemble
from dlrun.assembly.loader import build_loader
from dlrun.assembly.parts import Assembly, checkpoint_header, data_fingerprint
from dlrun.assembly.training import prepare_training

__all__ = ["Assembly", "assemble", "build_loader", "checkpoint_header", "data_fingerprint", "prepare_training"]
