"""Which environment variables a pool's processes get, by name and prefix: they outlive the kernel, and need no provider's key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from holynb import typed_path
from holynb.config import settings
from holynb.pools.options import EMBEDDED

__all__ = ["inherited", "variables"]

#: What a process needs to find its files and its language, its way out and its certificates; on Windows its system; a compiler.
_PLACES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "TEMP",
    "TMP",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
)
_WAY_OUT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM = ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROGRAMDATA", "PROGRAMFILES", "NUMBER_OF_PROCESSORS")
_ACCOUNT = ("USERNAME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA")
NAMES = frozenset((*_PLACES, *_WAY_OUT, *_SYSTEM, *_ACCOUNT, "CC", "CXX", "TOKENIZERS_PARALLELISM"))

#: Settings of Python, the loader, the devices and the libraries that compute and communicate. All of each library's: which of them
#: matters on a given machine, nobody here can know.
_PROCESS = ("LC_", "PYTHON", "LD_", "DYLD_", "XDG_", "SSL_", "MALLOC_")
_DEVICES = ("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVSHMEM_", "GLOO_", "UCX_", "FI_")
_COMPUTE = ("TORCH", "PYTORCH_", "TRITON_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "SAFETENSORS_")
PREFIXES = (*_PROCESS, *_DEVICES, *_COMPUTE)
#: Prefixes of those who also hand out keys: NVIDIA_API_KEY, HF_TOKEN, VLLM_API_KEY. What ends as a key does is left out.
KEY_HOLDERS = ("NVIDIA_", "HF_", "VLLM_", "RAY_", "HOLYNB_")
_KEYS = re.compile(r"(KEY|KEYS|TOKEN|TOKENS|SECRET|SECRETS|PASS|PASSWD|PASSWORD|CREDENTIAL|CREDENTIALS|AUTH)$")

#: What the hub's client is given where it fetches a model, and pip where it fetches the embedded one.
_HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
_PIP = "PIP_"
#: What opens a cluster of Ray's to who connects to it.
_RAY = ("RAY_AUTH_TOKEN",)


def inherited(model: str) -> dict[str, str]:
    """The variables of this process that those of a pool of `model` get, `[pool] env` of config.toml among them. Raises BadSetting."""
    named = settings.current().pool.get("env", ())
    keys = {p.key for p in settings.providers().values() if p.key}
    fetch = _for_fetching(model, os.environ)
    return {name: value for name, value in os.environ.items() if name in named or name in fetch or (_allowed(name) and name not in keys)}


def variables(model: str, *, on_ray: bool = False) -> dict[str, str]:
    """The environment of the pool's processes: what they inherit, and PYTHONPATH where holynb is on a path of this process alone.

    `on_ray`: they connect to a cluster, and get its token.
    """
    own = inherited(model) | ({name: os.environ[name] for name in _RAY if name in os.environ} if on_ray else {})
    root = str(Path(__file__).resolve().parents[2])
    if "site-packages" in root or "dist-packages" in root:
        return own
    return {**own, "PYTHONPATH": os.pathsep.join(dict.fromkeys([root, *filter(None, [os.environ.get("PYTHONPATH")])]))}


def _allowed(name: str) -> bool:
    upper = name.upper()  # proxies are written in either case, Windows' names in any
    return upper in NAMES or name.startswith(PREFIXES) or (name.startswith(KEY_HOLDERS) and _KEYS.search(name) is None)


def _for_fetching(model: str, names: Iterable[str]) -> Collection[str]:
    """The variables that fetching this model takes."""
    if model == EMBEDDED:
        return [name for name in names if name.startswith(_PIP)]
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not typed_path.is_there(typed_path.typed(model))
    return _HUB if is_hub_id else ()
