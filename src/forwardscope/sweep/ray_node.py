"""Ray on this machine alone, in a process that ends with the one that started it.

Ray's processes are children of this process and not of the sweep's. So an interrupt from the
terminal does not reach them, and Ray, which ends a whole process group when its parent is
killed, does not end the program that started the sweep.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from typing import Any

import ray

__all__ = ["serve"]

_OBJECT_STORE_BYTES = 128 * 2**20


def serve(folder: str, resources: dict[str, Any]) -> None:
    """Start Ray, print its address as JSON, and stop it at the end of standard input.

    Args:
        folder: Folder for Ray's files; removed at the end.
        resources: Arguments of `ray.init` that state the machine's resources.
    """
    try:
        context: Any = ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            **resources,
        )
        _print({"address": context.address_info["gcs_address"]})
        sys.stdin.read()
    except Exception as error:  # noqa: BLE001 - the sweep reports it
        _print({"error": f"{type(error).__name__}: {error}"})
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _print(message: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
