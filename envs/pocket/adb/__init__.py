"""Pocket behind the real adb client: daemon, shell, tools, file transfer."""
