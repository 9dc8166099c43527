"""CIFAR-10, ResNet-18 and ce; see cifar10_base. ResNet-34: network=resnet34."""

from configs.cifar10_base import config

config.head = "ce"
