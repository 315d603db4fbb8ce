# SPDX-License-Identifier: Apache-2.0
"""A vLLM plugin that lets MooncakeConnector start on a machine without an accelerator.

Its worker asks torch.accelerator for the current device's index, only to hand it to the platform's set_device(), which
does nothing on the CPU; but without an accelerator torch raises. This answers 0 then. All else is vLLM's own.
"""
import functools

import torch


def register():
    ask = torch.accelerator.current_device_index
    if getattr(ask, "without_accelerator", False):
        return

    @functools.wraps(ask)
    def current_device_index():
        return ask() if torch.accelerator.is_available() else 0

    current_device_index.without_accelerator = True
    torch.accelerator.current_device_index = current_device_index
