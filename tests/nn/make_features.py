#!/usr/bin/env python3
"""The numbers of tests/nn/test_taps.c, by PyTorch: losses of feature maps and their gradients.

Prints the table that stands in the test. FitNets' loss is torch's mse_loss; attention transfer is the published code
(szagoruyko/attention-transfer, and RepDistiller after it): at(F) = normalize(mean_c F^2), loss = mean (at_s - at_t)^2.
"""
import torch
import torch.nn.functional as F


def wave(count, factor, shift):
    return torch.sin(torch.arange(count, dtype=torch.float64) * factor + shift).to(torch.float32).double()


def attention(x):
    return F.normalize(x.pow(2).mean(1).view(x.size(0), -1))


student = wave(2 * 3 * 2 * 2, 0.7, 0.1).view(2, 3, 2, 2).requires_grad_()
same = wave(2 * 3 * 2 * 2, 1.3, 0.4).view(2, 3, 2, 2)
wider = wave(2 * 5 * 2 * 2, 1.1, 0.3).view(2, 5, 2, 2)
for name, loss in (("mse", F.mse_loss(student, same)),
                   ("attention", (attention(student) - attention(wider)).pow(2).mean())):
    (grad,) = torch.autograd.grad(loss, student)
    print(name, "%.9f" % loss.item())
    print(", ".join("%.9f" % v for v in grad.flatten()))
