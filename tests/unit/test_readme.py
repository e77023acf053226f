# SPDX-License-Identifier: Apache-2.0
"""What the README and the page about the policy file say is so."""

from __future__ import annotations

import re
from pathlib import Path

from ebpftop import config
from ebpftop.config import balancing

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
POLICY = (ROOT / "docs" / "policy.md").read_text()


def test_the_policy_of_its_page_is_a_right_one_and_names_every_key(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", POLICY, re.DOTALL)
    (example,) = (text for text in examples if "[limits]" in text)
    path = tmp_path / "policy.toml"
    path.write_text(example)

    policy = config.load(path)

    assert policy.limits.limits().pps == 5000
    for section, kind in (
        ("limits", config.LimitPolicy), ("protection", config.ProtectionPolicy),
        ("access", config.AccessPolicy), ("capacity", config.CapacityPolicy),
        ("shaping", config.ShapingPolicy), ("audit", config.AuditPolicy),
        ("[class]", config.ClassPolicy),
        ("balancer", config.BalancerPolicy), ("[vip]", config.VipPolicy),
        ("vip.check", balancing.CheckPolicy), ("[vip.backend]", balancing.BackendPolicy),
        ("recording", config.RecordingPolicy),
    ):  # fmt: skip
        text = example.partition(f"[{section}]")[2].partition("\n[")[0]
        for key in set(kind.__struct_encode_fields__) - {"check", "backend"}:
            assert re.search(rf"^{key} = ", text, re.MULTILINE), f"{section}.{key}"


def test_every_picture_and_page_of_the_readme_is_there() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)

    assert len(targets) >= 5
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_licences_are_where_the_headers_say() -> None:
    for path in (ROOT / "ebpftop").rglob("*"):
        if path.suffix not in {".py", ".c", ".h"}:
            continue
        first = path.read_text().splitlines()[0]
        kernel = path.suffix != ".py"
        wanted = "GPL-2.0-only OR BSD-2-Clause" if kernel else "Apache-2.0"
        assert f"SPDX-License-Identifier: {wanted}" in first, path
