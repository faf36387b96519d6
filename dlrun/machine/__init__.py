"""What this machine can do, measured: arithmetic, memory, overheads. Knows nothing of training."""
