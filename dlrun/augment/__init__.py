"""Changes of training batches, each example by its own random amounts, on the device, before normalisation.

A part is called with (batch, generator), draws from that generator alone, always the same number of values for a batch
of the same shape, and never waits for the device.
"""

from dlrun.augment.erasing import Cutout, Erasing
from dlrun.augment.geometry import Flip, Rotation, Translate
from dlrun.augment.mixing import CutMix, Mixup
from dlrun.augment.noise import Noise

__all__ = ["CutMix", "Cutout", "Erasing", "Flip", "Mixup", "Noise", "Rotation", "Translate"]
