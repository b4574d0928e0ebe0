"""COLO on the simulated Xen: the guest's network of real frames, QEMU's filters, libxl's part."""
