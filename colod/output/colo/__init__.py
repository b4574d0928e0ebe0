"""The COLO proxy: stands where QEMU's colo-compare stood, between QEMU's filters and libxl."""
