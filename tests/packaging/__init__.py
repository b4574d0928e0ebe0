"""The Debian package, built, installed, upgraded and removed in a container that systemd boots."""
