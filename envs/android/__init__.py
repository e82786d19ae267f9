"""Android devices and emulators: through adb, through android_env, and with task files of one's own."""
