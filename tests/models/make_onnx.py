#!/usr/bin/env python3
"""Makes what test_onnx_import.c reads; never needed to run the tests. PyTorch's exporter alone, without the onnx package.

onnx-NAME.onnx: networks as torch.onnx.export writes them; onnx-NAME.npz: samples "x" and the "logits" that PyTorch computes
for them. Weights are multiples of 1/64, so that they pack well. tests/models/make_onnx.py REFERENCE [FOLDER], REFERENCE
being a folder with models.py, the networks' definitions by which the fixtures were made.
"""
import os
import sys

import numpy
import torch
from torch import nn

sys.path.insert(0, sys.argv[1])
import models  # noqa: E402

folder = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(11)


def fill(net):
    """Weights of a network that has learnt something: nothing zero, variances above 0."""
    net.eval()
    with torch.no_grad():
        for name, p in net.state_dict().items():
            if "num_batches" in name:
                continue
            if "running_var" in name:
                v = torch.rand(p.shape) + 0.5
            elif p.dim() == 1:
                v = 0.25 * torch.randn(p.shape) + (1 if name.endswith("weight") else 0)
            else:
                v = torch.randn(p.shape) * (1 / p[0].numel() ** 0.5)
            p.copy_((64 * v).round() / 64)
    return net


def save(name, net, shape, opset, folded=True, batch="batch"):
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    axes = {"x": {0: batch}} if batch else None
    net, x = fill(net), torch.randn(2, *shape)
    torch.onnx.export(net, x[:1], f"{folder}/onnx-{name}.onnx", opset_version=opset, training=mode,
                      do_constant_folding=folded, input_names=["x"], dynamic_axes=axes)
    with torch.no_grad():
        numpy.savez(f"{folder}/onnx-{name}.npz", x=x.numpy(), logits=net(x).numpy())


def slim_mobilenet():
    """torchvision's MobileNetV2 of width 0.1: channels in eights, and a pooling that flattens by hand."""
    channels = {32: 8, 16: 8, 24: 8, 64: 8, 96: 16, 160: 16, 320: 32, 1280: 1280}
    layers, cin = [models.conv_bn_relu6(3, 8, 3, 2)], 8
    for (expand, cout, count), stride in zip(models.MobileNetV2.PLAN, (1, 2, 2, 2, 1, 2, 1)):
        for i in range(count):
            layers.append(models.InvertedResidual(cin, channels[cout], stride if i == 0 else 1, expand))
            cin = channels[cout]
    layers.append(models.conv_bn_relu6(cin, 1280, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 4))


def slim_link11():
    """The Link-11 student at an eighth of its width."""
    class Slim(models.ResNet):
        def __init__(self):
            nn.Module.__init__(self)
            self.stem, self.stages = "imagenet", 3
            self.conv1, self.bn1 = models.conv(2, 8, 7, 2), nn.BatchNorm2d(8)
            cin = 8
            for k in range(3):
                stage = []
                for i in range(2):
                    stage.append(models.Bottleneck(cin, 8 << k, 2 if k and not i else 1))
                    cin = 32 << k
                setattr(self, "layer%d" % (k + 1), nn.Sequential(*stage))
            self.fc1, self.fc2 = nn.Linear(cin, 20), nn.Linear(20, 5)
    return Slim()


save("fedgen_mnist", models.build("fedgen_mnist"), (1, 28, 28), 13, folded=False)
save("resnet8", models.build("resnet8"), (3, 32, 32), 9, batch=None)
save("mobilenet_v2", slim_mobilenet(), (3, 48, 64), 17)
save("real_resnet20", slim_link11(), (2, 1024), 13)
