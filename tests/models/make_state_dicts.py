#!/usr/bin/env python3
"""Makes what test_import.c reads; never needed to run the tests. PyTorch alone, no torchvision.

torchvision-NAME.txt: names and shapes of the state_dict of torchvision's network NAME, from definitions with the same
module tree. resnet8-*.safetensors: small networks as other people's code saves them, with an input and the logits
that PyTorch computes for it. tests/models/make_state_dicts.py [FOLDER]
"""
import json
import os
import struct
import sys

import torch
from torch import nn
from torch.nn import functional as F

folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))


# ---- torchvision's module trees


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        if stride != 1 or inplanes != planes * 4:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes * 4, 1, stride, bias=False), nn.BatchNorm2d(planes * 4)
            )


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inplanes = 64
        for k, (planes, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
            layer = []
            for i in range(blocks):
                layer.append(Bottleneck(inplanes, planes, 2 if k > 1 and i == 0 else 1))
                inplanes = planes * 4
            setattr(self, f"layer{k}", nn.Sequential(*layer))
        self.fc = nn.Linear(2048, 1000)


def conv_norm_activation(inp, out, kernel=3, stride=1, groups=1):
    return nn.Sequential(
        nn.Conv2d(inp, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    def __init__(self, inp, oup, stride, expand):
        super().__init__()
        hidden = inp * expand
        layers = [conv_norm_activation(inp, hidden, 1)] if expand != 1 else []
        layers += [
            conv_norm_activation(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, oup, 1, bias=False),
            nn.BatchNorm2d(oup),
        ]
        self.conv = nn.Sequential(*layers)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        features, inp = [conv_norm_activation(3, 32, 3, 2)], 32
        for t, c, n, s in settings:
            for i in range(n):
                features.append(InvertedResidual(inp, c, s if i == 0 else 1, t))
                inp = c
        features.append(conv_norm_activation(inp, 1280, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))


# ---- CIFAR ResNets


class BasicBlock(nn.Module):
    """The shortcut of option A has no parameters; that of option B is a convolution called `shortcut_name`."""

    def __init__(self, inp, out, stride, shortcut_name):
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut_name, self.changes, self.pad = shortcut_name, stride != 1 or inp != out, out // 4
        if self.changes and shortcut_name:
            setattr(self, shortcut_name, nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out)))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.changes and self.shortcut_name:
            x = getattr(self, self.shortcut_name)(x)
        elif self.changes:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class ResNet8(nn.Module):
    def __init__(self, shortcut_name, head):
        super().__init__()
        self.head = head
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for k, (inp, out) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            setattr(self, f"layer{k}", nn.Sequential(BasicBlock(inp, out, 2 if k > 1 else 1, shortcut_name)))
        setattr(self, head, nn.Linear(64, 10))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head)(x.mean((2, 3)))


# ---- files

TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def write(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, t in sorted(tensors.items(), key=lambda p: (-p[1].element_size(), p[0])):
        t = t.detach().contiguous()
        raw = bytes(t.reshape(-1).view(torch.int16 if t.element_size() == 2 else t.dtype).numpy().tobytes())
        header[name] = {"dtype": TYPES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, path), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def small(path, network, dtype, prefix, counters):
    """Weights rounded to dtype, used as such in f32."""
    torch.manual_seed(7)
    for name, t in network.state_dict().items():
        if name.endswith("running_var"):
            t.uniform_(0.5, 1.5)
        elif t.dtype == torch.float32 and t.dim() == 1:
            t.copy_(torch.randn_like(t) * 0.2 + (1.0 if name.endswith(".weight") else 0.0))
        elif t.dtype == torch.float32 and t.dim() == 2:
            t.normal_(0, 1.0)  # logits of some size
        elif t.dtype == torch.int64:
            t.fill_(391)
        if t.dtype == torch.float32:
            t.copy_(t.to(dtype).float())
    x = torch.randn(2, 3, 32, 32).to(dtype)
    logits = network.eval()(x.float())
    tensors = {
        prefix + n: t.to(dtype) if t.dtype == torch.float32 else t
        for n, t in network.state_dict().items()
        if counters or not n.endswith("num_batches_tracked")
    }
    write(path, {**tensors, "test.x": x, "test.logits": logits})


def listing(name, network):
    with open(os.path.join(folder, f"torchvision-{name}.txt"), "w") as f:
        for n, t in network.state_dict().items():
            f.write(" ".join([n, *map(str, t.shape)]) + "\n")


listing("resnet50", ResNet50())
listing("mobilenet_v2", MobileNetV2())
small("resnet8-akamaster.safetensors", ResNet8(None, "linear"), torch.float16, "state_dict.module.", False)
small("resnet8-kuangliu.safetensors", ResNet8("shortcut", "linear"), torch.bfloat16, "state_dict._orig_mod.module.", True)
