"""The official Node SDK; its tests are in node/sdk.mjs."""

import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
INSTALLED = HERE.parent.parent / "target" / "compat" / "node"


def test_the_node_sdk(demo, scripted, upstream):
    shutil.copy(HERE / "node" / "sdk.mjs", INSTALLED / "sdk.mjs")
    result = subprocess.run(
        ["node", "--test", "sdk.mjs"],
        cwd=INSTALLED,
        env={
            **os.environ,
            "BATON_BASE_URL": f"{demo['base_url']}/v1",
            "BATON_API_KEY": demo["api_key"],
            "BATON_SCRIPTED_URL": f"{scripted['base_url']}/v1",
            "BATON_SCRIPTED_KEY": scripted["api_key"],
            "UPSTREAM_URL": upstream.url,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
