"""What dlrun adds to OmegaConf's interpolations."""

import hashlib
import os
import re
import time
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlrun.config.identity import run_id


def register() -> None:
    """Make `${run_id:}`, `${sweep_id:}` and `${folder:TEXT}` known; calling it again changes nothing."""
    OmegaConf.register_new_resolver("run_id", _run_id, replace=True)
    OmegaConf.register_new_resolver("sweep_id", _sweep_id, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("folder", folder_name, replace=True)


def _run_id(*, _root_: DictConfig) -> str:
    config: dict[Any, Any] = {}
    for key in _root_:
        if key != "hydra":
            node = _root_._get_node(key)
            config[str(key)] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else _root_[key]
    return run_id(config)


def folder_name(text: Any) -> str:
    """A text as part of one folder's name: data=mine/cats makes no folder in a folder, and file systems end at 255."""
    return re.sub(r"[/\s]+", "-", re.sub(r"(^|,)\++", r"\1", str(text)))[:120].encode()[:200].decode(errors="ignore")


def _sweep_id() -> str:
    return hashlib.sha256(f"{time.time_ns()}-{os.getpid()}".encode()).hexdigest()[:8]
